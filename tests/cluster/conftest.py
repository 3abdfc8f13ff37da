"""Fixtures: a control plane for all tests, and a namespace for each."""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "python"))

import network  # noqa: E402
from control_plane import ControlPlane, Tools  # noqa: E402
from node import Node, Provisioner  # noqa: E402
from postgres_server import PostgresServer  # noqa: E402

# Maximum seconds for each step.
TIMEOUT = 120
CLUSTER = Path(os.environ.get("TSGW_CLUSTER", ROOT / "target" / "cluster"))
# The standard that every namespace of the tests enforces.
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}

# Objects that the values of test_chart.py name, and that the administrator of a cluster provides.
CLASSES = {
    "/apis/scheduling.k8s.io/v1/priorityclasses": {"metadata": {"name": "high"}, "value": 1000},
    "/apis/node.k8s.io/v1/runtimeclasses": {"metadata": {"name": "gvisor"}, "handler": "runsc"},
}


def eventually(condition, what, timeout=TIMEOUT, period=0.1):
    """Waits until a condition returns something true, and returns it."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout} s: {what() if callable(what) else what}"
        time.sleep(period)


@pytest.fixture(scope="session")
def plane(tmp_path_factory):
    """The control plane. Its logs are kept with the directory of the last runs."""
    network.make_machine()
    plane = ControlPlane(CLUSTER / "kubernetes", tmp_path_factory.mktemp("control-plane") / "state")
    tools = Tools(plane)
    tools.kubectl("apply", "--server-side", "-f", CLUSTER / "crds")
    tools.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    for path, body in CLASSES.items():
        plane.api.create(path, body)
    yield plane
    plane.close()


@pytest.fixture(scope="session")
def tools(plane):
    return Tools(plane)


namespace_numbers, node_numbers = itertools.count(1), itertools.count(1)


@pytest.fixture
def namespace(plane):
    """A new namespace that enforces the restricted standard."""
    name = f"test-{next(namespace_numbers)}"
    metadata = {"name": name, "labels": RESTRICTED}
    plane.api.create("/api/v1/namespaces", {"metadata": metadata})
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    eventually(lambda: plane.api.find(account), "the namespace has its default account")
    yield name
    plane.api.delete(f"/api/v1/namespaces/{name}")


# --- Nodes and what runs beside the cluster ---

# The node whose kube-proxy translates addresses for the tests. It runs no pod.
MACHINE_NODE = "machine"


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("nodes")


@pytest.fixture(scope="session")
def machine(plane, state):
    """Lets the tests reach services, and claims get their volumes."""
    node = {"metadata": {"name": MACHINE_NODE}, "spec": {"unschedulable": True}}
    plane.api.create("/api/v1/nodes", node)
    address = {"addresses": [{"type": "InternalIP", "address": network.MACHINE}]}
    plane.api.patch(f"/api/v1/nodes/{MACHINE_NODE}/status", {"status": address})
    plane.start_proxy(MACHINE_NODE)
    (state / "volumes").mkdir()
    Provisioner(plane.api, state / "volumes")


@pytest.fixture
def nodes(plane, machine, state):
    """Starts a number of nodes, and waits until the scheduler can use them."""
    image = os.environ.get("TSGW_IMAGE")
    assert image, "TSGW_IMAGE must name the image's root directory; scripts/test-cluster sets it"
    started = []

    def start(count):
        for _ in range(count):
            started.append(Node(plane, image, state, next(node_numbers)))
        names = {node.name for node in started}
        eventually(lambda: names <= ready_nodes(plane.api), "the nodes are ready")
        return started

    yield start
    for node in started:
        node.close()


def ready_nodes(api):
    """The names of nodes that pods can be scheduled on."""
    return {
        node["metadata"]["name"]
        for node in api.items("/api/v1/nodes")
        if not [t for t in node["spec"].get("taints", []) if t["effect"] == "NoSchedule"]
    }


@pytest.fixture(scope="session")
def client_package():
    """The Python client, with its generated stubs."""
    package = ROOT / "clients" / "python"
    buf = Path(sys.executable).with_name("buf")
    environment = os.environ | {"PATH": f"{buf.parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([buf, "generate"], check=True, cwd=package, env=environment, timeout=TIMEOUT)
    sys.path.insert(0, str(package / "src"))
    import thingspace_gateway

    return thingspace_gateway


@pytest.fixture
def postgres(machine):
    """A PostgreSQL server that the pods reach. Returns a function that makes an empty database for the gateway, in place of one
    with this name, and returns its URL."""
    server = PostgresServer(address=network.MACHINE, clients="198.18.0.0/15")
    server.psql("CREATE ROLE gateway LOGIN")

    def create(name):
        server.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.psql(f"CREATE DATABASE {name} OWNER gateway")
        return f"postgresql://gateway@{network.MACHINE}/{name}?sslmode=disable"

    yield create
    server.stop()


@pytest.fixture
def scenario(plane, tools, namespace, machine, state, client_package, print_figures):
    """A release under load."""
    from scenario import Scenario

    scenario = Scenario(plane, tools, namespace, state, client_package, print_figures)
    yield scenario
    scenario.close()


@pytest.fixture(autouse=True)
def collected_logs(request, state):
    """Prints the last lines of the agents and the pods of a failed test."""
    yield
    if getattr(request.node, "failed", False):
        for log in sorted(state.glob("*/agent.log")) + sorted(state.glob("*/pods/*/*/log")):
            print(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    item.failed = getattr(item, "failed", False) or report.failed


@pytest.fixture
def print_figures(capsys):
    """Prints the figures of a scenario as one line of JSON."""

    def run(name, figures):
        with capsys.disabled():
            print(f"\nFIGURES {name} {json.dumps(figures)}")

    return run
