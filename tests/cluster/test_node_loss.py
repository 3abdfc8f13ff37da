"""A node that stops without notice. Three replicas continue to serve; one replica needs an operator."""

import time

from conftest import eventually
from scenario import node_of

# Maximum seconds until Kubernetes marks a lost node as not ready by default, with ten between two renewals of its lease.
NOTICED_WITHIN = 75
# Maximum seconds until every callback reaches another pod then.
SERVED_WITHIN = 10
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


def wait_until_noticed(plane, node):
    """Waits until the control plane knows that the node is lost. From then on, its pods get no connections."""

    def is_unknown():
        conditions = plane.api.get(f"/api/v1/nodes/{node.name}")["status"]["conditions"]
        return [c for c in conditions if c["type"] == "Ready" and c["status"] == "Unknown"]

    begin = time.monotonic()
    eventually(is_unknown, "the node is not ready", timeout=NOTICED_WITHIN)
    return round(time.monotonic() - begin, 1)


def test_the_loss_of_a_node_stops_no_service_with_three_replicas(plane, nodes, postgres, scenario):
    machines = nodes(3)
    release, load = scenario.release, scenario.load
    settings = {"changes": {"reconcile_after": "20s"}}
    scenario.start("high-availability", 3, settings, journal={"engine": "postgres", "url": postgres("gateway")})
    time.sleep(5)
    begin = time.monotonic()
    (lost,) = [node for node in machines if node.name == node_of(release.pods()[0])]
    lost.power_off()
    noticed = wait_until_noticed(plane, lost)
    eventually(lambda: len(release.ready_pods()) == 2, "the pod of the lost node is not ready")
    scenario.figures["until_noticed"] = load.disturbance(begin, time.monotonic()) | {"node_not_ready_after_s": noticed}

    begin = time.monotonic()
    time.sleep(SERVED_WITHIN + 10)
    failures = [attempt[0] - begin for attempt in list(load.attempts) if attempt[0] > begin and attempt[2] is not None]
    scenario.figures["two_replicas"] = {"last_failed_attempt_after_s": round(max(failures, default=0), 1)}
    assert not [moment for moment in failures if moment > SERVED_WITHIN], scenario.figures

    # The step of an operator. Without it, the pod of a StatefulSet stays on the lost node.
    release.tools.kubectl("taint", "nodes", lost.name, OUT_OF_SERVICE)
    begin = time.monotonic()
    moved = lambda: lost.name not in [node_of(pod) for pod in release.pods()]
    eventually(moved, "the pod of the lost node is removed", timeout=90)
    release.wait_until_ready(3)
    scenario.figures["three_replicas_again"] = {"after_the_taint_s": round(time.monotonic() - begin, 1)}
    scenario.finish("node_loss_high_availability", expected=lambda: load.sent.keys())
    # Connections to the lost pod time out, but most callbacks reach another one.
    assert scenario.figures["until_noticed"]["longest_refusal_s"] <= 1.0


def test_an_operator_moves_the_only_replica_from_a_lost_node(plane, nodes, scenario):
    machines = nodes(2)
    release, load = scenario.release, scenario.load
    scenario.start("one-node", 1, settings={"changes": {"reconcile_after": "20s"}})
    time.sleep(5)
    begin = time.monotonic()
    (lost,) = [node for node in machines if node.name == node_of(release.pods()[0])]
    lost.power_off()
    noticed = wait_until_noticed(plane, lost)
    time.sleep(10)
    pod = release.pods()[0]
    assert node_of(pod) == lost.name, "the pod was moved without a command: two pods could write the same volume"

    # The operator has made sure that the machine is off, and says so.
    taint = time.monotonic()
    release.tools.kubectl("taint", "nodes", lost.name, OUT_OF_SERVICE)
    uid = pod["metadata"]["uid"]
    moved = lambda: [p for p in release.ready_pods() if p["metadata"]["uid"] != uid]
    eventually(moved, lambda: release.kubectl("get", "pods,events"))
    ready = time.monotonic()
    time.sleep(5)
    scenario.figures["outage"] = load.disturbance(begin, time.monotonic()) | {
        "node_not_ready_after_s": noticed,
        "ready_after_the_taint_s": round(ready - taint, 1),
    }
    scenario.finish("node_loss_one_node", expected=lambda: load.sent.keys())
    assert load.given_up and load.lookups, "ThingSpace gave up no callback, or the gateway looked up no result"
