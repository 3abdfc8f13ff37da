"""The dashboard and the alerts: recorded faults, the schema of Grafana, and a real Prometheus."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from alert_faults import ACCOUNT, RECORDINGS, Run, answer, free_port, on_postgres, webhook
from alert_recorder import RECORDINGS as RECORDED
from alert_recorder import ROOT, RULES
from fake_thingspace import FakeThingSpace

DASHBOARD = RULES.with_name("dashboard.json")
OPERATIONS = ROOT / "docs/operations.md"
GO = Path(sys.executable).with_name("go")

# Maximum seconds until Prometheus has data for every query.
TIMEOUT = 40


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts():
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def recordings():
    return sorted(RECORDED.glob("*.yaml"))


def queries():
    """Returns the queries of all panels, for all series."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    found = [re.sub(r"\$(namespace|job|instance)", ".*", query) for query in found]
    return [query.replace("$__rate_interval", "15s") for query in found]


def selectors(query):
    """Returns the selectors of a query, without the durations."""
    query = re.sub(r"\b(by|on)\s*\([^)]*\)", "", query)
    names = r"\b(?:up|process_[a-z_]+|thingspace_gateway_[a-z_]+)"
    return re.findall(names + r"\{[^}]*\}|" + names + r"(?=\s*(?:\)|\[|[<>=/]))", query)


def labels(series):
    name, rest = series.split("{", 1)
    pairs = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    return name, frozenset((key, value) for key, value in pairs.items() if key not in ("instance", "job", "namespace"))


def test_the_rules_are_valid():
    run("promtool", "check", "rules", RULES)


def test_the_dashboard_is_generated_and_has_the_schema_of_grafana():
    run(sys.executable, ROOT / "scripts/dashboard", "--check")
    run(GO, "run", ".", DASHBOARD, cwd=RECORDED / "schema")


def test_each_alert_fires_on_the_recording_of_its_fault_and_none_in_a_healthy_run():
    run("promtool", "test", "rules", *recordings())
    assert [path.stem for path in recordings()] == sorted(RECORDINGS)
    fired = {alert for _, expected in RECORDINGS.values() for alert in expected}
    assert fired == {rule["alert"] for rule in alerts()}
    for name, (_, expected) in RECORDINGS.items():
        checks = yaml.safe_load((RECORDED / f"{name}.yaml").read_text())["tests"][0]["promql_expr_test"]
        last = max(checks, key=lambda check: int(check["eval_time"][:-1]))
        found = [sample["labels"] for sample in last["exp_samples"]]
        assert found == [f'{{alertname="{alert}"}}' for alert in sorted(expected)], name


def test_each_alert_has_its_section_in_the_manual_and_names_it():
    manual = OPERATIONS.read_text()
    sections = set(re.findall(r"^### (ThingspaceGateway\w+)$", manual, re.MULTILINE))
    assert sections == {rule["alert"] for rule in alerts()}
    for rule in alerts():
        name = rule["alert"]
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/operations.md#{name.lower()}"), name
        section = manual.split(f"\n### {name}\n")[1].split("\n### ")[0]
        for part in ["**Symptom.**", "**Meaning.**", "**Do.**", "**Ends**"]:
            assert part in section, (name, part)
    links = {link["url"].split("#")[1] for link in links_of_panels()}
    assert links <= {section.lower() for section in sections}


def links_of_panels():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [link for panel in panels for link in panel.get("links", [])]


@contextmanager
def prometheus(targets, directory):
    """Runs a Prometheus that scrapes targets every second. Yields a function that runs a query."""
    static = [{"targets": [f"127.0.0.1:{address.rsplit(':', 1)[1]}"], "labels": {"namespace": "default"}} for address in targets]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "thingspace-gateway", "static_configs": static}],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}",
             f"--web.listen-address={address}"],
            stdout=log, stderr=log,
        )

    def get(path, **arguments):
        url = f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    try:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                get("status/buildinfo")
                break
            except OSError:
                assert time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.2)
        yield get
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def demo(stubs):
    """Gateways whose settings and traffic make all series exist: one with SQLite, two replicas with PostgreSQL."""
    demo = Run(stubs)
    with demo.stack:
        hook = demo.stack.enter_context(webhook(200))
        port = free_port()
        demo.gateway(
            "gateway-sqlite",
            sandbox__failure_rate="0.2",
            callbacks__listen=f"127.0.0.1:{port}",
            callbacks__public_url=f"http://127.0.0.1:{port}",
            callbacks__register="replace",
            callbacks__forward_url=hook,
            thingspace__accounts=ACCOUNT,
            journal__spool_dir=str(demo.directory()),
        )
        server, upstream = demo.postgres(), FakeThingSpace()
        for number in range(2):
            on_postgres(demo, server, upstream, f"gateway-{number}")
        yield demo
    demo.recorder.stop()


def produce_data(demo):
    """Changes, callbacks, watches and errors."""
    sqlite, replica = demo.gateways["gateway-sqlite"], demo.gateways["gateway-0"]
    change = demo.change(sqlite)
    watch(demo, sqlite, change.change_id)
    # A refused change, an unknown outcome, and a callback with a wrong path.
    demo.change(sqlite, prefix="9994974")
    demo.change(sqlite, prefix="9994964")
    first = demo.devices
    answer(demo, replica, demo.change(replica), [first, first + 1])


def watch(demo, gateway, change_id):
    import grpc

    with grpc.insecure_channel(gateway.address) as channel:
        request = demo.pb.WatchRequestRequest(change_id=change_id)
        for _ in demo.Stub(channel).WatchRequest(request, timeout=30):
            pass


def test_every_query_of_the_dashboard_and_of_the_alerts_returns_data(demo, tmp_path):
    addresses = [gateway.admin for gateway in demo.gateways.values()]
    with prometheus(addresses, tmp_path) as get:
        wanted = {*queries(), *(one for rule in alerts() for one in selectors(rule["expr"]))}
        deadline = time.monotonic() + TIMEOUT
        while wanted:
            assert time.monotonic() < deadline, sorted(wanted)
            produce_data(demo)
            wanted = {query for query in wanted if not get("query", query=query)["result"]}
            time.sleep(0.5)
        groups = get("rules")["groups"]
        assert [rule["health"] for group in groups for rule in group["rules"]] == ["ok"] * len(alerts())
        # A recording whose metrics or labels no longer exist proves nothing.
        live = get("query", query='{job="thingspace-gateway"}')["result"]
        live = {labels(notation(sample["metric"])) for sample in live}
        for path in recordings():
            series = yaml.safe_load(path.read_text())["tests"][0]["input_series"]
            missing = {labels(one["series"]) for one in series} - live
            assert not missing, (path.name, missing)


def notation(metric):
    pairs = ",".join(f'{key}="{value}"' for key, value in metric.items() if key != "__name__")
    return f"{metric['__name__']}{{{pairs}}}"
