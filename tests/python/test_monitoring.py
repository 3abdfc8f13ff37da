"""The dashboard and the alerts: recorded faults, the schema of Grafana, and a real Prometheus."""

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from alert_faults import RECORDINGS, Run, answer, with_fake
from alert_recorder import RECORDINGS as RECORDED
from alert_recorder import ROOT, RULES
from fake_thingspace import FakeThingSpace, callback, post
from monitoring_demo import DASHBOARD, TIMEOUT, all_series, panels, produce_data, prometheus, start
from prometheus_client.parser import text_string_to_metric_families

OPERATIONS = ROOT / "docs/operations.md"
GO = Path(sys.executable).with_name("go")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts():
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


def recordings():
    return sorted(RECORDED.glob("*.yaml"))


def queries():
    """Returns the queries of all panels, for all series."""
    return [all_series(target["expr"]) for panel in panels() for target in panel.get("targets", [])]


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
    return [link for panel in panels() for link in panel.get("links", [])]


@pytest.fixture
def faults(stubs):
    run = Run(stubs)
    with run.stack:
        yield run
        run.recorder.stop()


@pytest.fixture
def demo(stubs):
    with start(stubs) as demo:
        yield demo


def samples(gateway):
    with urllib.request.urlopen(f"http://{gateway.admin}/metrics", timeout=60) as response:
        families = text_string_to_metric_families(response.read().decode())
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        values = [sample.labels[key] for key in sorted(sample.labels)]
        found[" ".join([sample.name.removeprefix("thingspace_gateway_"), *values])] = sample.value
    return found


def wait_for(gateway, condition):
    """Waits until the samples fulfil a condition: the gauges are read every five seconds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition(found := samples(gateway)):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_the_gauges_of_the_state_follow_changes_callbacks_and_the_quarantine(faults):
    service = "DeviceProfileService"
    status = {"code": 200}
    upstream = FakeThingSpace(lambda _: (status["code"], {"requestId": "r"} if status["code"] == 200 else {}))
    gateway = with_fake(faults, upstream)
    wait_for(gateway, lambda found: found.get("journal_free_bytes", 0) > 0 and found["leader"] == 1)
    found = samples(gateway)
    assert found["journal_writable"] == 1 and found["journal_bytes"] > 0 and found["process_open_fds"] > 0
    assert found[f"callbacks_last_time_seconds {service}"] == found["changes_oldest_pending_age_seconds"] == 0

    first = faults.devices
    change = faults.change(gateway)
    age = f"changes_oldest_without_result_age_seconds {service}"
    wait_for(gateway, lambda found: found[age] > 0 and found["login_session_open"] == 1)
    answer(faults, gateway, change, [first])
    assert samples(gateway)[f"callbacks_last_time_seconds {service}"] > 0
    wait_for(gateway, lambda found: found[age] == 0 and found["changes_oldest_pending_age_seconds"] > 0)

    assert post(gateway, b"{") == 200
    status["code"] = 500
    faults.change(gateway)
    post(gateway, callback("foreign", "89148000000009999999"))
    wait_for(gateway, lambda found: found["quarantine_callbacks unreviewed"] == 1 and found["attribution_requests"] == 1)
    assert samples(gateway)["quarantine_bytes"] > 0
    assert samples(gateway)["attribution_oldest_age_seconds"] > 0


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
