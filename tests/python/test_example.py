"""The Python example, run as its README describes."""

import itertools
import sqlite3
import subprocess
import sys
import threading
import time

import grpc
import pytest
from conftest import CLIENT, EXAMPLE, ROOT, TIMEOUT, Gateway, example_environment
from fake_thingspace import CREDENTIALS, FakeThingSpace, callback, post
from ports import free_port

ACCOUNT = "0000123456-00001"


@pytest.mark.parametrize("operation", ["esim", "service"])
def test_every_device_gets_its_result(start, example, operation):
    gateway = start(sandbox__failure_rate="0.2", sandbox__duplicate_rate="0.5")
    done = example("--target", gateway.address, "--devices", "50", "--operation", operation)
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith("row-")]
    assert sorted(line.split()[0] for line in results) == sorted(f"row-{n}" for n in range(50))
    failed = sum("OUTCOME_FAILED" in line for line in results)
    assert 0 < failed < 50
    assert done.stdout.splitlines()[-1] == (
        f"CHANGE_STATE_FINISHED: 50 devices, {50 - failed} succeeded, {failed} failed, "
        "0 pending; 50 results, 0 repeated attempts"
    )


def test_a_watch_that_the_server_ends_is_resumed(start, example):
    gateway = start(grpc__max_stream_age="1s", sandbox__callback_delay="3s")
    done = example("--target", gateway.address, "--devices", "5")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "5 succeeded" in last and "; 5 results, " in last
    assert "; 5 results, 0 repeated" not in last
    assert "UNAVAILABLE RECONNECT: " in done.stderr


def test_the_same_key_is_the_same_change(start, example):
    gateway = start()
    runs = [example("--target", gateway.address, "--key", "order-17") for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[1].stderr
    ids = {run.stdout.split()[1] for run in runs}
    assert len(ids) == 1


def test_an_invalid_field_is_printed_by_its_path(start, example):
    done = example("--target", start().address, "--plan", "it's")
    assert done.returncode == 1
    assert done.stderr.startswith("INVALID_ARGUMENT FIELD_INVALID: service_plan ")
    assert "\n  service_plan: must be 1 to 128 characters" in done.stderr


@pytest.mark.parametrize("readme", [CLIENT / "README.md", ROOT / "README.md"])
def test_the_programs_in_the_readmes_run(start, generated, tmp_path, readme):
    gateway = start()
    program = readme.read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "program.py").write_text(program.replace("localhost:50051", gateway.address))
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", gateway.address],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=example_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] in ("10 succeeded", "0 OUTCOME_SUCCEEDED ")


# Logs the states, outcomes and tokens that the program applies.
LOG = """
CREATE TABLE log (entry TEXT NOT NULL);
CREATE TABLE token_log (token TEXT NOT NULL);
CREATE TRIGGER inserted_change AFTER INSERT ON change BEGIN
    INSERT INTO log VALUES (new.change_id || ' ' || new.state); END;
CREATE TRIGGER updated_change AFTER UPDATE ON change BEGIN
    INSERT INTO log VALUES (new.change_id || ' ' || new.state); END;
CREATE TRIGGER updated_device AFTER UPDATE ON device BEGIN
    INSERT INTO log VALUES (new.change_id || ' ' || new.device_index || ' ' || new.outcome); END;
CREATE TRIGGER stored_token AFTER INSERT ON position BEGIN
    INSERT INTO token_log VALUES (new.resume_token); END;
"""


class Database:
    """Reads the database of `sync_to_sqlite.py`."""

    def __init__(self, path):
        self.path = path

    def rows(self, query):
        with sqlite3.connect(self.path, timeout=TIMEOUT) as database:
            return database.execute(query).fetchall()

    def wait_for_results(self, count):
        query = "SELECT count(*) FROM device WHERE outcome <> 'PENDING'"
        deadline = time.monotonic() + TIMEOUT
        while self.rows(query)[0][0] < count:
            assert time.monotonic() < deadline, self.rows("SELECT * FROM change")
            time.sleep(0.01)

    def devices(self):
        return self.rows(
            "SELECT change_id, device_index, client_reference, outcome, fault_code FROM device "
            "ORDER BY change_id, device_index"
        )


def listed_devices(messages, gateway):
    """Returns the rows of ListDevices for all changes of the account."""
    rows = []
    for change in gateway.ListChanges(messages.ListChangesRequest(account_name=ACCOUNT)).changes:
        request = messages.ListDevicesRequest(change_id=change.change_id, page_size=1000)
        rows += [
            (
                change.change_id,
                device.device_index,
                device.client_reference,
                {1: "PENDING", 2: "SUCCEEDED", 3: "FAILED"}[device.outcome],
                device.result.fault.code,
            )
            for device in gateway.ListDevices(request).devices
        ]
    return sorted(rows)


def test_a_database_stays_in_step_although_its_client_and_the_gateway_are_killed(stubs, tmp_path):
    messages, stub = stubs
    count = 150
    thingspace = FakeThingSpace()
    settings = CREDENTIALS | {
        "thingspace__base_url": thingspace.base_url,
        "grpc__listen": f"127.0.0.1:{free_port()}",
        "callbacks__listen": f"127.0.0.1:{free_port()}",
        "journal__dir": str(tmp_path / "journal"),
    }
    database = Database(tmp_path / "devices.db")
    command = [sys.executable, EXAMPLE / "sync_to_sqlite.py", "--target", settings["grpc__listen"]]
    command += ["--database", str(database.path)]
    environment = example_environment()
    gateway = Gateway(**settings)
    processes = [gateway.process]

    def kill(process):
        process.kill()
        process.wait(timeout=TIMEOUT)

    def start_client():
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment))
        return processes[-1]

    try:
        done = subprocess.run(
            [*command, "--once"], capture_output=True, text=True, timeout=TIMEOUT, env=environment
        )
        assert done.returncode == 0, done.stderr
        with sqlite3.connect(database.path) as log:
            log.executescript(LOG)
        client = start_client()
        calls = stub(grpc.insecure_channel(gateway.address))
        esim = calls.ChangeEsimPlan(
            messages.ChangeEsimPlanRequest(
                account_name=ACCOUNT,
                service_plan="Example Plan",
                idempotency_key="esim",
                devices=[{"eid": f"99{n:030}", "iccid": f"9994{n:016}"} for n in range(count)],
            ),
            timeout=TIMEOUT,
        ).change
        plan = calls.ChangeServicePlan(
            messages.ChangeServicePlanRequest(
                account_name=ACCOUNT,
                service_plan="Example Plan",
                idempotency_key="service plan",
                devices=[
                    {
                        "device_ids": [{"kind": "meid", "id": f"FF00000{n:07X}"}],
                        "client_reference": f"row-{n}",
                    }
                    for n in range(count)
                ],
            ),
            timeout=TIMEOUT,
        ).change

        def send_results(numbers):
            fault = {"faultcode": "UnifiedWebService.REQUEST_FAILED.DeviceNotFound", "faultstring": ""}
            failed = {"status": "Failed", "faultResponse": fault}
            for number in numbers:
                outcome = failed if number % 10 == 0 else {}
                result = callback(esim.request_ids[0], f"9994{number:016}", **outcome)
                assert post(gateway, result) == 200
                meid = [{"kind": "meid", "id": f"FF00000{number:07X}"}]
                result = callback(plan.request_ids[0], "", **outcome | {"deviceIds": meid})
                assert post(gateway, result, service="CarrierService") == 200

        # The results arrive while the client is killed, and then while the gateway is.
        sending = threading.Thread(target=send_results, args=[range(100)])
        sending.start()
        for results in (20, 60, 100):
            database.wait_for_results(results)
            kill(client)
            client = start_client()
        sending.join(timeout=TIMEOUT)
        kill(gateway.process)
        gateway = Gateway(**settings)
        processes.append(gateway.process)
        send_results(range(100, 120))
        database.wait_for_results(240)
        kill(client)
        send_results(range(120, count))
        done = subprocess.run(
            [*command, "--once"], capture_output=True, text=True, timeout=TIMEOUT, env=environment
        )
        assert done.returncode == 0, done.stderr

        calls = stub(grpc.insecure_channel(gateway.address))
        listed = listed_devices(messages, calls)
        assert len(listed) == 2 * count
        assert sum(row[3] == "FAILED" for row in listed) == 2 * count // 10
        assert database.devices() == listed
        changes = database.rows("SELECT change_id, state, change_type FROM change ORDER BY change_id")
        assert changes == sorted(
            [
                (esim.change_id, "FINISHED", "ESIM_PLAN"),
                (plan.change_id, "FINISHED", "SERVICE_PLAN"),
            ]
        )
        entries = [entry for (entry,) in database.rows("SELECT entry FROM log")]
        assert len(entries) == len(set(entries))
        states = {"QUEUED", "DISPATCHED", "ACCEPTED", "FINISHED"}
        assert sum(entry.split()[1] in states for entry in entries) == 2 * len(states)
        # The tokens are those of one stream. Opened, reconnect and bookmark repeat the previous one.
        stored = [token for (token,) in database.rows("SELECT token FROM token_log ORDER BY rowid")]
        request = messages.WatchAccountRequest(account_name=ACCOUNT, until="UNTIL_CAUGHT_UP")
        whole = [message.resume_token for message in calls.WatchAccount(request, timeout=TIMEOUT)]
        assert [key for key, _ in itertools.groupby(stored)] == [
            key for key, _ in itertools.groupby(whole)
        ]
    finally:
        for process in processes:
            kill(process)


def test_a_database_whose_token_has_expired_is_rebuilt(start, example, stubs, tmp_path):
    messages, stub = stubs

    def sync(gateway, *arguments):
        database = ["--database", str(tmp_path / "devices.db"), "--once"]
        arguments = ["--target", gateway.address, *database, *arguments]
        return example(*arguments, program="sync_to_sqlite.py")

    old, new = start(), start()
    for gateway in (old, new):
        done = example("--target", gateway.address, "--devices", "5")
        assert done.returncode == 0, done.stderr
    assert sync(old).returncode == 0
    before = Database(tmp_path / "devices.db").devices()
    assert len(before) == 5

    rejected = sync(new)
    assert rejected.returncode == 1
    assert "RESUME_TOKEN_EXPIRED" in rejected.stderr
    assert "Run the program again with --rebuild." in rejected.stderr
    assert Database(tmp_path / "devices.db").devices() == before
    done = sync(new, "--rebuild")
    assert done.returncode == 0, done.stderr
    with grpc.insecure_channel(new.address) as channel:
        listed = listed_devices(messages, stub(channel))
    assert len(listed) == 5
    assert Database(tmp_path / "devices.db").devices() == listed != before
