"""Backup while callbacks arrive, restore to another volume with the chart's Job, and a larger volume."""

import json
import time

import pytest
from conftest import eventually
from load import ACCOUNT
from release import merged

CLAIM = "journal-test-thingspace-gateway-0"


def claim(name, **more):
    spec = {"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "50Gi"}}, "storageClassName": "directory"}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec | more}


def volume_with(state, release, name, content):
    """A volume and a claim `name`, with a file for the Job."""
    directory = state / "volumes" / name
    directory.mkdir(parents=True)
    (directory / "journal.backup").write_bytes(content)
    volume = {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOncePod"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "directory",
            "claimRef": {"namespace": release.namespace, "name": name},
            "hostPath": {"path": str(directory)},
        },
    }
    release.api.create("/api/v1/persistentvolumes", volume)
    release.api.create(f"{release.base}/persistentvolumeclaims", claim(name, volumeName=name))


def test_a_backup_under_load_is_restored_to_another_volume(nodes, scenario, state, print_figures):
    nodes(1)
    release, load, package = scenario.release, scenario.load, scenario.client_package
    scenario.start("one-node", 1)
    time.sleep(8)
    acknowledged, accepted = set(load.acknowledged), dict(load.accepted)
    begin = time.monotonic()
    backup = release.execute(release.pods()[0], "journal", "backup", "-")
    figures = {"backup_bytes": len(backup), "backup_s": round(time.monotonic() - begin, 2)}
    end = time.monotonic()
    time.sleep(3)
    figures |= {"failed_callbacks_during_the_backup": load.disturbance(begin, end)["failed_attempts"]}
    load.stop()
    token = load.watches[0].token
    assert token

    checked = release.execute(release.pods()[0], "journal", "check", "-", stdin=backup)
    assert json.loads(checked)["intact"]

    # The runbook of the chart's README: a volume, no gateway, the restore, the gateway.
    begin = time.monotonic()
    release.kubectl("create", "-f", "-", stdin=json.dumps(claim("restored")))
    release.kubectl("delete", release.workload(), "--cascade=foreground")
    values = merged(scenario.values, {"persistence": {"existingClaim": "restored"}})
    restored = json.loads(release.maintain(values, "journal", "restore", "-", stdin=backup))
    assert restored["last_position"] == json.loads(checked)["last_position"], restored
    assert not release.pods(), "a gateway still runs"
    release.helm("upgrade", values)
    release.wait_until_ready(1)
    figures["restore_s"] = round(time.monotonic() - begin, 1)
    assert release.api.find(f"{release.base}/persistentvolumeclaims/{CLAIM}"), "the old volume is gone"

    scenario.unlisted, scenario.found = accepted, set()
    assert acknowledged <= scenario.listed(), "the backup lacks results that were acknowledged before it began"
    v1 = package.v1
    with load.connect() as client:
        with pytest.raises(package.GatewayError, match="RESUME_TOKEN_EXPIRED"):
            next(client.watch_account(v1.WatchAccountRequest(account_name=ACCOUNT, resume_token=token)))
        devices = [v1.EsimDevice(eid="99" + "9" * 30, iccid="9994" + "9" * 16)]
        change = v1.ChangeEsimPlanRequest(
            account_name=ACCOUNT, service_plan="Example Plan", idempotency_key="after the restore", devices=devices
        )
        with pytest.raises(package.GatewayError, match="PAUSED"):
            client.change_esim_plan(change, total_timeout=1)
        release.execute(release.pods()[0], "changes", "resume")
        assert client.change_esim_plan(change, total_timeout=30).change.change_id
    print_figures("backup_and_restore", figures)


def test_a_backup_on_a_volume_is_restored(nodes, scenario, state):
    nodes(1)
    release, load = scenario.release, scenario.load
    scenario.start("one-node", 1)
    eventually(lambda: load.acknowledged, "callbacks arrive")
    load.stop()
    (pod,) = release.pods()
    volume_with(state, release, "backup", release.execute(pod, "journal", "backup", "-"))
    release.kubectl("create", "-f", "-", stdin=json.dumps(claim("restored")))
    release.kubectl("delete", release.workload(), "--cascade=foreground")
    values = merged(scenario.values, {"persistence": {"existingClaim": "restored"}})
    release.maintain(values, "journal", "restore", "/backup/journal.backup", backupClaim="backup")
    release.helm("upgrade", values)
    release.wait_until_ready(1)
    assert load.acknowledged <= scenario.listed_again()
    assert_restored(release)


def start_two_replicas(nodes, postgres, scenario):
    """Starts two replicas on PostgreSQL, and ends the load once there are results."""
    nodes(2)
    scenario.start("high-availability", 2, replicaCount=2, journal={"engine": "postgres", "url": postgres("gateway")})
    eventually(lambda: scenario.load.acknowledged, "callbacks arrive")
    scenario.load.stop()
    return scenario.release, scenario.load


def test_a_backup_is_restored_to_another_database(nodes, postgres, scenario):
    release, load = start_two_replicas(nodes, postgres, scenario)
    backup = release.execute(release.pods()[0], "journal", "backup", "-")
    release.kubectl("delete", release.workload(), "--cascade=foreground")
    values = merged(scenario.values, {"journal": {"url": postgres("restored")}})
    release.maintain(values, "journal", "restore", "-", stdin=backup)
    release.helm("upgrade", values)
    release.wait_until_ready(2)
    assert load.acknowledged <= scenario.listed_again()
    assert_restored(release)


def test_replicas_whose_database_was_replaced_are_restarted(nodes, postgres, scenario):
    release, load = start_two_replicas(nodes, postgres, scenario)
    before = [pod["metadata"]["uid"] for pod in release.pods()]
    (pod, _) = release.pods()
    backup = release.execute(pod, "journal", "backup", "-")
    postgres("gateway")
    release.execute(pod, "journal", "restore", "-", stdin=backup)

    def are_restarted():
        counts = [status["restartCount"] for pod in release.pods() for status in pod["status"]["containerStatuses"]]
        return counts == [1, 1] and len(release.ready_pods()) == 2

    eventually(are_restarted, lambda: release.kubectl("describe", "pods"), timeout=240)
    assert [pod["metadata"]["uid"] for pod in release.pods()] == before, "pods were replaced, not only their containers"
    assert load.acknowledged <= scenario.listed_again()
    assert_restored(release)


def assert_restored(release):
    for pod in release.pods():
        (pause,) = json.loads(release.execute(pod, "status"))["pauses"]
        assert pause["paused_by"] == "journal restore"


def test_a_restore_of_an_incomplete_backup_fails_and_can_be_repeated(nodes, scenario):
    nodes(1)
    release = scenario.release
    scenario.start("one-node", 1)
    eventually(lambda: scenario.load.acknowledged, "callbacks arrive")
    scenario.load.stop()
    (pod,) = release.pods()
    backup = release.execute(pod, "journal", "backup", "-")
    release.kubectl("create", "-f", "-", stdin=json.dumps(claim("restored")))
    release.kubectl("delete", release.workload(), "--cascade=foreground")
    values = merged(scenario.values, {"persistence": {"existingClaim": "restored"}})
    with pytest.raises(AssertionError, match="it is incomplete"):
        release.maintain(values, "journal", "restore", "-", stdin=backup[:-100])
    release.maintain(values, "journal", "restore", "-", stdin=backup)


def test_a_larger_volume_needs_no_restart(nodes, scenario, tools):
    nodes(1)
    release = scenario.release
    scenario.start("one-node", 1)
    (pod,) = release.pods()
    size = {"spec": {"resources": {"requests": {"storage": "100Gi"}}}}
    release.kubectl("patch", "pvc", CLAIM, "--patch", json.dumps(size))
    release.kubectl("delete", release.workload(), "--cascade=orphan")
    values = merged(scenario.values, {"persistence": {"size": "100Gi"}})
    release.helm("upgrade", values)
    path = f"/apis/apps/v1/namespaces/{release.namespace}/{release.workload()}"
    observed = lambda stateful: stateful["status"].get("observedGeneration") == stateful["metadata"]["generation"]
    eventually(lambda: observed(release.api.get(path)), "the controller has seen the new StatefulSet")
    release.wait_until_ready(1)
    assert release.pods()[0]["metadata"]["uid"] == pod["metadata"]["uid"], "the pod was replaced"
    spec = release.api.get(path)["spec"]
    (template,) = spec["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "100Gi"
