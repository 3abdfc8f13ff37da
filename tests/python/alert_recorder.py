"""Records the metrics of gateways, and writes them as a unit test of the alerts for promtool.

A recording has one scrape a second. The test replays it with one scrape a minute, so that the durations of the alerts pass:
time runs 60 times faster. Values that are times or ages are multiplied accordingly. All other values are those of the
scrape."""

import re
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "helm/thingspace-gateway/monitoring/alerts.yaml"
RECORDINGS = ROOT / "tests/monitoring"

# Seconds of the test for each second of the recording.
SPEED = 60
JOB = {"job": "thingspace-gateway", "namespace": "default"}


def metrics_of_rules():
    """Returns the names of all metrics in the expressions of the alerts."""
    expressions = " ".join(re.findall(r"expr: \|\n(.*?)\n +for:", RULES.read_text(), re.DOTALL))
    expressions = re.sub(r"\b(by|on) \([^)]*\)|\{[^}]*\}", "", expressions)
    return set(re.findall(r"\b(?:thingspace_gateway|process)_\w+", expressions))


class Recorder:
    """Scrapes `targets`, the URLs of /metrics by instance, every second from `start` until `stop`."""

    def __init__(self):
        self.targets, self.ticks, self.series = {}, 0, {}
        self._names, self._stop = metrics_of_rules(), threading.Event()
        self.start_time, self._thread = None, threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.start_time = time.time()
        self._thread.start()

    def stop(self):
        self._stop.set()
        if self.start_time:
            self._thread.join()

    def _run(self):
        while not self._stop.wait(max(0, self.start_time + self.ticks - time.time())):
            for instance, url in list(self.targets.items()):
                self._scrape(instance, url)
            self.ticks += 1

    def _scrape(self, instance, url):
        try:
            with urllib.request.urlopen(url, timeout=0.9) as response:
                text = response.read().decode()
        except (OSError, urllib.error.URLError):
            self._record("up", {"instance": instance}, 0)
            return
        self._record("up", {"instance": instance}, 1)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in self._names:
                    self._record(sample.name, sample.labels | {"instance": instance}, sample.value)

    def _record(self, name, labels, value):
        labels = JOB | labels
        pairs = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        self.series.setdefault(f"{name}{{{pairs}}}", {})[self.ticks] = self._stretch(name, value)

    def _stretch(self, name, value):
        if name.endswith(("_time_seconds", "_expiry_seconds")):
            return round((value - self.start_time) * SPEED)
        if name.endswith("_age_seconds"):
            return round(value * SPEED)
        return value

    def write(self, name, description, expected, quiet_until):
        """Writes the test: at the end exactly the alerts `expected` fire, and none until the second `quiet_until`."""
        checks = [(self.ticks - 1, expected), *((tick, []) for tick in range(5, quiet_until, 5))]
        lines = [
            f"# {description}",
            "# Recorded by scripts/record-alerts. Do not edit.",
            f"rule_files: [../../{RULES.relative_to(ROOT)}]",
            "evaluation_interval: 1m",
            "tests:",
            "  - interval: 1m",
            f"    name: {name}",
            "    input_series:",
        ]
        for series, values in sorted(self.series.items()):
            lines.append(f"      - series: '{series}'")
            lines.append(f"        values: '{notation(values, self.ticks)}'")
        lines.append("    promql_expr_test:")
        for tick, alerts in sorted(checks):
            lines.append("      - expr: group by (alertname) (ALERTS{alertstate=\"firing\"})")
            lines.append(f"        eval_time: {tick}m")
            lines.append("        exp_samples:" if alerts else "        exp_samples: []")
            for alert in sorted(alerts):
                lines.append(f"          - labels: '{{alertname=\"{alert}\"}}'")
                lines.append("            value: 1")
        RECORDINGS.mkdir(exist_ok=True)
        (RECORDINGS / f"{name}.yaml").write_text("\n".join(lines) + "\n")


def notation(values, ticks):
    """Returns values in promtool's notation. A series that ends becomes stale, as Prometheus makes it."""
    words, previous = [], None
    for tick in range(ticks):
        value = values.get(tick)
        if value is None:
            # A missing value, or the marker of a series that ended.
            words.append(["stale" if previous not in (None, "stale", "_") else "_", 0])
        else:
            words.append([f"{value:.15g}", 0])
        previous = words[-1][0]
    runs = []
    for word, _ in words:
        if runs and runs[-1][0] == word and word != "stale":
            runs[-1][1] += 1
        else:
            runs.append([word, 1])
    return " ".join(run(word, count) for word, count in runs)


def run(word, count):
    if count == 1:
        return word
    return f"_x{count}" if word == "_" else f"{word}+0x{count - 1}"
