"""One replica with SQLite on a volume: how long callbacks fail in a restart, and whether lookups find the missed results."""

import copy
import time

from conftest import eventually


def test_lookups_find_the_results_whose_callbacks_a_restart_refused(nodes, scenario):
    nodes(1)
    release, load = scenario.release, scenario.load
    scenario.start("one-node", 1, settings={"changes": {"reconcile_after": "20s"}})

    def delete_pod():
        release.kubectl("delete", "pod", release.pods()[0]["metadata"]["name"], "--wait=true")

    def upgrade():
        values = copy.deepcopy(scenario.values)
        values["config"]["shutdown"] = {"grace": "24s"}
        uid = release.pods()[0]["metadata"]["uid"]
        release.helm("upgrade", values)
        eventually(lambda: [p for p in release.ready_pods() if p["metadata"]["uid"] != uid], "the new pod is ready")

    def kill():
        release.kill_and_wait(release.pods()[0])

    scenario.measure("undisturbed", lambda: time.sleep(10))
    scenario.measure("delete_pod", delete_pod)
    scenario.measure("helm_upgrade", upgrade)
    scenario.measure("kill", kill)
    scenario.finish("one_node", expected=lambda: load.sent.keys())
    assert load.given_up and load.lookups, "ThingSpace gave up no callback, or the gateway looked up no result"
