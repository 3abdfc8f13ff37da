"""The Python example, run as its README describes."""

import pytest


@pytest.mark.parametrize("program", ["change_esim_plans.py", "change_service_plans.py"])
def test_every_device_gets_its_result(start, example, program):
    gateway = start(sandbox__failure_rate="0.2", sandbox__duplicate_rate="0.5")
    done = example("--target", gateway.address, "--devices", "50", program=program)
    assert done.returncode == 0, done.stderr
    results = [line for line in done.stdout.splitlines() if line.startswith("row-")]
    assert sorted(line.split()[0] for line in results) == sorted(f"row-{n}" for n in range(50))
    failed = sum("OUTCOME_FAILED" in line for line in results)
    assert 0 < failed < 50
    assert done.stdout.splitlines()[-1] == (
        f"CHANGE_STATE_FINISHED: 50 devices, {50 - failed} succeeded, {failed} failed, "
        "0 pending; 50 results, 0 resumed"
    )


def test_a_watch_that_the_server_ends_is_resumed(start, example):
    gateway = start(grpc__max_stream_age="1s", sandbox__callback_delay="3s")
    done = example("--target", gateway.address, "--devices", "5")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert "5 succeeded" in last and "; 5 results, " in last
    assert "; 5 results, 0 resumed" not in last
    assert "repeating the call: UNAVAILABLE RECONNECT" in done.stderr


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
    assert "executed = NO" in done.stderr
    assert "\n  service_plan: must be 1 to 128 characters" in done.stderr
