"""Gateways, traffic and a Prometheus in which every panel of the dashboard and every alert has data."""

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import grpc
import yaml
from alert_faults import ACCOUNT, Run, answer, certificate, on_postgres, policy, utc, webhook
from alert_recorder import RULES
from fake_thingspace import FakeThingSpace
from ports import free_port

DASHBOARD = RULES.with_name("dashboard.json")

# Maximum seconds until Prometheus serves.
TIMEOUT = 40


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def all_series(query, rate_interval="15s"):
    """Returns a query of the dashboard with the variables replaced, for all series."""
    query = re.sub(r"\$(namespace|job|instance)", ".*", query)
    return query.replace("$__rate_interval", rate_interval)


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


@contextmanager
def start(stubs):
    """Starts gateways whose settings and traffic make all series exist: one with SQLite, one with TLS and a policy file,
    and two replicas with PostgreSQL."""
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
        demo.gateway(
            "gateway-secure",
            **certificate(demo.directory(), utc(90 * 86400)),
            **policy(demo.directory() / "policy.toml"),
            audit__output="stdout",
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
    if change:
        watch(demo, sqlite, change.change_id)
    # A refused change, an unknown outcome, and a callback with a wrong path.
    demo.change(sqlite, prefix="9994974")
    demo.change(sqlite, prefix="9994964")
    first = demo.devices
    if change := demo.change(replica):
        answer(demo, replica, change, [first, first + 1])


def watch(demo, gateway, change_id):
    with grpc.insecure_channel(gateway.address) as channel:
        request = demo.pb.WatchRequestRequest(change_id=change_id)
        for _ in demo.Stub(channel).WatchRequest(request, timeout=30):
            pass
