"""Every client library, installed from its package, against the real gateway and a fake ThingSpace.

scripts/clients builds and installs the libraries. conformance.py starts their programs."""

import random
import signal
import socket
import threading
import time

import grpc
import pytest
from authority import Authority
from conformance import (
    ACCOUNT,
    CONNECTION_LOST,
    GENERATED,
    LANGUAGES,
    REQUEST_ID,
    STREAM_RESET,
    ConformanceEnv,
    Trust,
    abort,
    wait_until,
)
from conftest import ROOT
from envoy_proxy import Envoy
from ports import free_port

DEVICES = 20


@pytest.fixture
def env(tmp_path):
    env = ConformanceEnv(tmp_path)
    yield env
    env.close()


every_language = pytest.mark.parametrize("language", LANGUAGES)


# Results.


@every_language
def test_ten_thousand_results_arrive_once_and_in_order(env, language):
    rows = list(range(10_000))
    random.Random(1).shuffle(rows)
    env.start_gateway()
    watch = env.watch(language, env.change(language, 10_000))
    env.send_results(rows)
    watch.assert_complete(rows)
    last = [line for line in watch.lines if "event" in line][-1]
    assert last["event"] == "finished" and last["state"] == "FINISHED"
    assert (last["succeeded"], last["failed"]) == (10_000, 0)
    assert watch.retries() == [] and len(env.thingspace.changes()) == 1


@every_language
def test_thousands_of_results_arrive_once_across_a_cut_a_kill_and_a_drain(env, language):
    rows = list(range(4_000))
    random.Random(2).shuffle(rows)
    env.start_gateway()
    proxy = env.proxy()
    watch = env.watch(language, env.change(language, 4_000), target=proxy.address)
    # The program is still reading when the stream breaks.
    env.send_results(rows[:1_000])
    proxy.cut()
    env.send_results(rows[1_000:2_000])
    env.kill_gateway()
    env.start_gateway()
    env.send_results(rows[2_000:3_000])
    env.drain_gateway()
    env.start_gateway()
    env.send_results(rows[3_000:])
    watch.assert_complete(rows)
    assert watch.retries() and len(env.thingspace.changes()) == 1


@every_language
def test_a_change_is_watched_by_its_key(env, language):
    env.start_gateway()
    env.change(language)
    watch = env.watch(language, "", account=ACCOUNT, key="the-key")
    env.send_results(range(DEVICES))
    watch.assert_complete(range(DEVICES))


@every_language
def test_the_devices_of_all_pages_are_listed(env, language):
    env.start_gateway()
    change_id = env.change(language, 2_500)
    listed = env.run(language, "list", change_id=change_id, page_size=400).finish()
    assert listed == {"rows": [f"row-{number}" for number in range(2_500)]}


@every_language
def test_an_account_is_watched_across_a_killed_gateway(env, language):
    requests = []

    def respond(body):
        requests.append(f"00000000-0000-4000-8000-{len(requests):012}")
        return 200, {"requestId": requests[-1]}

    env.respond = respond
    env.start_gateway()
    watch = env.run(language, "watch_account", account=ACCOUNT)
    changes = [env.change(language, 10, key=f"key-{n}", first=n * 10) for n in range(2)]
    env.send_results(range(5), requests[0])
    env.send_results(range(10, 15), requests[1])
    watch.wait_for_rows(10)
    env.kill_gateway()
    watch.wait_for(watch.retries)
    env.start_gateway()
    env.send_results(range(15, 20), requests[1])
    env.send_results(range(5, 10), requests[0])
    watch.wait_for(lambda: [x.get("state") for x in watch.lines].count("FINISHED") == 2)
    assert watch.rows() == [*range(5), *range(10, 15), *range(15, 20), *range(5, 10)], str(watch)
    assert {line["change_id"] for line in watch.lines if "row" in line} == set(changes)
    assert watch.events().count("opened") == 1, str(watch)
    watch.process.terminate()
    assert watch.finish() == {"end": "cancelled"}

    # A program that stored the token of an event continues after it.
    seventh = [line for line in watch.lines if "row" in line][6]["resume_token"]
    rest = env.run(language, "watch_account", account=ACCOUNT, resume_token=seventh, until="CAUGHT_UP")
    rest.assert_complete([*range(12, 15), *range(15, 20), *range(5, 10)])


@every_language
def test_a_slow_reader_receives_each_result_once_across_a_killed_gateway(env, language, tmp_path):
    env.start_gateway()
    pause = {"pause_at": 7, "pause_file": tmp_path / "continue"}
    watch = env.watch(language, env.change(language, 3_000), **pause)
    env.send_results(range(1_000))
    watch.wait_for_rows(7)
    env.kill_gateway()
    env.start_gateway()
    env.send_results(range(1_000, 3_000))
    assert len(watch.rows()) == 7
    (tmp_path / "continue").touch()
    watch.assert_complete(range(3_000))
    assert watch.retries()


# Broken streams.


@every_language
def test_a_cut_connection_loses_and_repeats_no_result(env, language):
    env.start_gateway()
    proxy = env.proxy()
    watch = env.watch(language, env.change(language), target=proxy.address)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    proxy.cut()
    watch.wait_for(watch.retries)
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))


@every_language
def test_a_silent_connection_is_noticed_by_keepalive(env, language):
    env.start_gateway()
    proxy = env.proxy()
    watch = env.watch(language, env.change(language), target=proxy.address, keepalive=1)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    proxy.swallow()
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    assert watch.retries()


@every_language
def test_a_stream_without_events_is_opened_again(env, language, stubs):
    pb, _ = stubs
    tokens = []

    def watch(request, context):
        tokens.append(request.resume_token)
        yield pb.WatchRequestResponse(resume_token=f"opened-{len(tokens)}", opened={})
        if len(tokens) == 1:
            yield pb.WatchRequestResponse(resume_token="first", bookmark={})
            while context.is_active():
                time.sleep(0.05)
        yield pb.WatchRequestResponse(resume_token="last", finished={"change": {"state": 4}})

    gateway = env.fake_gateway(stubs=stubs, watch=watch)
    watching = env.watch(language, "c", target=gateway.target, idle_timeout=1)
    assert watching.finish() == {"end": "ok"}, str(watching)
    assert watching.events() == ["opened", "bookmark", "finished"]
    assert tokens == ["", "first"]


@every_language
def test_a_killed_gateway_loses_and_repeats_no_result(env, language):
    env.start_gateway()
    watch = env.watch(language, env.change(language))
    env.send_results(range(10))
    watch.wait_for_rows(10)
    env.kill_gateway()
    watch.wait_for(watch.retries)
    env.start_gateway()
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    code, reason = watch.retries()[0]
    assert code in CONNECTION_LOST[language] and reason is None


@every_language
def test_a_drained_gateway_loses_and_repeats_no_result(env, language):
    env.start_gateway()
    watch = env.watch(language, env.change(language))
    env.send_results(range(10))
    watch.wait_for_rows(10)
    env.drain_gateway()
    watch.wait_for(lambda: ("UNAVAILABLE", "RECONNECT") in watch.retries())
    env.start_gateway()
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))


@every_language
def test_a_stream_that_the_gateway_ends_loses_and_repeats_no_result(env, language):
    env.settings["grpc__max_stream_age"] = "1s"
    env.start_gateway()
    watch = env.watch(language, env.change(language))
    env.send_results(range(10))
    watch.wait_for(lambda: len(watch.retries()) >= 2)
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    assert ("UNAVAILABLE", "RECONNECT") in watch.retries()


@every_language
def test_the_delay_of_reconnect_is_obeyed_and_no_event_counts_before_the_next_is_read(env, language, stubs):
    pb, _ = stubs
    opened = []

    def watch(request, context):
        opened.append((time.monotonic(), request.resume_token))
        yield pb.WatchRequestResponse(resume_token="start", opened={})
        if len(opened) == 1:
            yield pb.WatchRequestResponse(resume_token="one", device_result={"client_reference": "row-1"})
            yield pb.WatchRequestResponse(
                resume_token="one", reconnect={"reason": 2, "retry_after": {"seconds": 2}}
            )
            abort(context, grpc.StatusCode.UNAVAILABLE, "RECONNECT", retry="NOW")
        yield pb.WatchRequestResponse(resume_token="two", finished={"change": {"state": 4}})

    gateway = env.fake_gateway(stubs=stubs, watch=watch)
    watching = env.watch(language, "c", target=gateway.target)
    assert watching.finish() == {"end": "ok"}, str(watching)
    assert [token for _, token in opened] == ["", "one"]
    assert 1.9 < opened[1][0] - opened[0][0] < 5
    assert watching.retries() == [("UNAVAILABLE", "RECONNECT")]


@every_language
def test_an_unknown_event_is_delivered_and_its_token_is_used(env, language, stubs):
    pb, _ = stubs
    tokens = []

    def watch(request, context):
        tokens.append(request.resume_token)
        if len(tokens) == 1:
            yield pb.WatchRequestResponse(resume_token="start", opened={})
            # An empty message in the field 99.
            yield pb.WatchRequestResponse(resume_token="new").SerializeToString() + b"\x9a\x06\x00"
            context.abort(grpc.StatusCode.INTERNAL, "reset by a proxy")
        yield pb.WatchRequestResponse(resume_token="again", opened={})
        yield pb.WatchRequestResponse(resume_token="last", finished={"change": {"state": 4}})

    gateway = env.fake_gateway(stubs=stubs, watch=watch)
    watching = env.watch(language, "c", target=gateway.target)
    assert watching.finish() == {"end": "ok"}, str(watching)
    assert watching.events() == ["opened", "unknown", "finished"]
    assert tokens == ["", "new"]
    assert watching.retries() == [("INTERNAL", None)]


@every_language
@pytest.mark.parametrize("code", ["CANCELLED", "UNKNOWN", "INTERNAL", "NOT_FOUND", "DEADLINE_EXCEEDED"])
def test_a_stream_that_ends_with_any_code_of_a_proxy_is_opened_again(env, language, stubs, code):
    pb, _ = stubs
    opened = []

    def watch(request, context):
        opened.append(request.resume_token)
        if len(opened) < 3:
            context.abort(grpc.StatusCode[code], "from a proxy")
        yield pb.WatchRequestResponse(resume_token="start", opened={})
        yield pb.WatchRequestResponse(resume_token="last", finished={"change": {"state": 4}})

    gateway = env.fake_gateway(stubs=stubs, watch=watch)
    watching = env.watch(language, "c", target=gateway.target)
    assert watching.finish() == {"end": "ok"}, str(watching)
    assert len(opened) == 3 and watching.events() == ["opened", "finished"]


@every_language
def test_finished_is_delivered_once_if_its_stream_breaks(env, language, stubs):
    pb, _ = stubs
    opened = []

    def watch(request, context):
        opened.append(request.resume_token)
        yield pb.WatchRequestResponse(resume_token="start", opened={})
        yield pb.WatchRequestResponse(resume_token="last", finished={"change": {"state": 4}})
        context.abort(grpc.StatusCode.UNAVAILABLE, "from a proxy")

    gateway = env.fake_gateway(stubs=stubs, watch=watch)
    watching = env.watch(language, "c", target=gateway.target)
    assert watching.finish() == {"end": "ok"}, str(watching)
    assert opened == [""] and watching.events() == ["opened", "finished"]


@every_language
def test_a_watch_that_cannot_be_resumed_ends_with_the_reason(env, language, tmp_path):
    env.start_gateway()
    watch = env.watch(language, env.change(language))
    env.send_results(range(10))
    watch.wait_for_rows(10)
    env.kill_gateway()
    watch.wait_for(watch.retries)
    env.settings["journal__dir"] = str(tmp_path / "another-journal")
    env.start_gateway()
    error = watch.error()
    assert (error["code"], error["reason"]) == ("OUT_OF_RANGE", "RESUME_TOKEN_EXPIRED"), str(watch)
    assert error["retry"] == "NEVER" and not error["outcome_unknown"]


@every_language
def test_a_watch_with_a_refused_token_is_not_repeated(env, language):
    env.start_gateway()
    watch = env.watch(language, env.change(language), resume_token="not a token")
    assert watch.error()["reason"] == "RESUME_TOKEN_INVALID", str(watch)
    assert watch.retries() == []


# Envoy in front of the gateway.


@pytest.fixture
def start_envoy(env, tmp_path):
    """Starts an Envoy that forwards to the gateway of `env`."""

    def start(port=None, **options):
        envoy = Envoy(port or free_port(), env.target, tmp_path, **options)
        env.add(envoy.process)
        return envoy

    return start


@every_language
def test_the_default_route_timeout_of_envoy_loses_and_repeats_no_result(env, language, start_envoy):
    env.start_gateway()
    watch = env.watch(language, env.change(language), target=start_envoy().address)
    env.send_results(range(10))
    watch.wait_for(lambda: (STREAM_RESET.get(language, "INTERNAL"), None) in watch.retries())
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))


@every_language
def test_a_route_timeout_of_envoy_repeats_a_change_and_sends_one_request(env, language, start_envoy):
    answered = threading.Event()
    env.respond = lambda body: (answered.wait(60), (200, {"requestId": REQUEST_ID}))[1]
    env.start_gateway()
    change = env.start_change(language, target=start_envoy(route_timeout="1s").address)
    change.wait_for(lambda: len(change.retries()) >= 2)
    answered.set()
    assert change.finish()["state"] == "ACCEPTED", str(change)
    assert len(env.thingspace.changes()) == 1


@every_language
def test_a_killed_envoy_loses_and_repeats_no_result(env, language, start_envoy):
    env.start_gateway()
    port = free_port()
    envoy = start_envoy(port)
    watch = env.watch(language, env.change(language), target=envoy.address)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    envoy.kill()
    watch.wait_for(watch.retries)
    start_envoy(port)
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    code, reason = watch.retries()[0]
    assert code in CONNECTION_LOST[language] and reason is None


@every_language
def test_a_gateway_killed_behind_envoy_loses_and_repeats_no_result(env, language, start_envoy):
    env.start_gateway()
    watch = env.watch(language, env.change(language), target=start_envoy().address)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    env.kill_gateway()
    watch.wait_for(watch.retries)
    env.start_gateway()
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    assert watch.retries()[0] == (STREAM_RESET.get(language, "INTERNAL"), None)


# Changes.


@every_language
def test_a_change_that_starts_before_the_gateway_is_repeated(env, language):
    change = env.start_change(language)
    change.wait_for(change.retries)
    env.start_gateway()
    assert change.finish()["state"] == "ACCEPTED", str(change)
    assert len(env.thingspace.changes()) == 1


@every_language
def test_a_gateway_that_is_killed_before_its_answer_sends_one_request(env, language):
    arrived, answered = threading.Event(), threading.Event()

    def respond(body):
        arrived.set()
        answered.wait(60)
        return 200, {"requestId": REQUEST_ID}

    env.respond = respond
    env.start_gateway()
    change = env.start_change(language)
    assert arrived.wait(60), str(change)
    env.kill_gateway()
    change.wait_for(change.retries)
    env.start_gateway()
    made = change.finish()
    answered.set()
    assert made["state"] == "OUTCOME_UNKNOWN", str(change)
    assert len(env.thingspace.changes()) == 1


@every_language
def test_three_invalid_fields_are_named_and_nothing_is_repeated(env, language):
    env.start_gateway()
    change = env.start_change(language, account="no", key="k" * 65, plan="no<plan")
    error = change.error()
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert (error["retry"], error["executed"], error["outcome_unknown"]) == ("NEVER", "NO", False)
    found = {violation["field"]: violation["reason"] for violation in error["field_violations"]}
    assert found == {"account_name": "FORMAT", "idempotency_key": "TOO_LONG", "service_plan": "CHARACTER"}
    assert all(violation["description"] for violation in error["field_violations"])
    assert change.retries() == [] and env.thingspace.changes() == []


@every_language
def test_a_change_without_a_key_is_refused_by_the_library(env, language):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        change = env.start_change(language, key="", target=f"127.0.0.1:{listener.getsockname()[1]}")
        assert not change.error()["outcome_unknown"]
        # Some libraries connect before the first call, but none sends a call.
        assert change.retries() == []


@every_language
def test_a_valid_change_is_validated_and_not_sent(env, language):
    env.start_gateway()
    change = env.start_change(language, validate_only=True)
    made = change.finish()
    assert not made.get("change_id") and made["device_count"] == DEVICES, str(change)
    assert env.thingspace.changes() == []


NEVER_UNKNOWN = {"retry": "NEVER", "executed": "UNKNOWN"}
# The errors of a fake gateway, and whether the library repeats the call.
ANSWERS = {
    "an error whose outcome is open": ("INTERNAL", NEVER_UNKNOWN, True),
    "an unknown reason that was not executed": ("NEW_REASON", {"retry": "NEVER", "executed": "NO"}, False),
    "an unknown reason to repeat": ("NEW_REASON", {"retry": "NOW", "executed": "NO"}, True),
    "an unknown retry": ("NEW_REASON", {"retry": "NEW_RETRY", "executed": "NO"}, True),
    "an unknown executed": ("NEW_REASON", {"retry": "NEVER", "executed": "NEW_EXECUTED"}, True),
    "no metadata": ("NEW_REASON", {}, True),
    "no details": (None, None, True),
}


@every_language
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_change_is_repeated_with_the_same_key_unless_nothing_was_executed(env, language, stubs, answer):
    pb, _ = stubs
    reason, metadata, repeats = ANSWERS[answer]
    requests = []

    def change(request, context):
        requests.append(request)
        if len(requests) == 1 and reason:
            abort(context, grpc.StatusCode.INTERNAL, reason, **metadata)
        if len(requests) == 1:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "from a proxy")
        return pb.ChangeEsimPlanResponse(change={"change_id": "c", "state": 3, "device_count": DEVICES})

    gateway = env.fake_gateway(stubs=stubs, change=change)
    changing = env.start_change(language, target=gateway.target)
    if repeats:
        assert changing.finish() == {"change_id": "c", "state": "ACCEPTED", "device_count": DEVICES}
        code = "INTERNAL" if reason else "FAILED_PRECONDITION"
        assert changing.retries() == [(code, reason)]
        assert len(requests) == 2 and requests[0] == requests[1]
        assert requests[0].idempotency_key == "the-key"
    else:
        error = changing.error()
        assert (error["reason"], error["retry"], error["executed"]) == (reason, "NEVER", "NO")
        assert not error["outcome_unknown"] and len(requests) == 1


@every_language
def test_validation_follows_retry(env, language, stubs):
    requests = []

    def change(request, context):
        requests.append(request)
        if len(requests) == 1:
            context.abort(grpc.StatusCode.INTERNAL, "from a proxy")
        abort(context, grpc.StatusCode.INTERNAL, "INTERNAL", **NEVER_UNKNOWN)

    gateway = env.fake_gateway(stubs=stubs, change=change)
    changing = env.start_change(language, target=gateway.target, validate_only=True)
    error = changing.error()
    assert error["reason"] == "INTERNAL" and not error["outcome_unknown"]
    assert len(requests) == 2


@every_language
def test_the_delay_of_an_error_is_obeyed(env, language, stubs):
    pb, _ = stubs
    times = []

    def change(request, context):
        times.append(time.monotonic())
        if len(times) == 1:
            details = {"retry": "LATER", "executed": "NO", "retry_after": 2}
            abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "THROTTLED", **details)
        return pb.ChangeEsimPlanResponse(change={"change_id": "c", "state": 3, "device_count": DEVICES})

    gateway = env.fake_gateway(stubs=stubs, change=change)
    changing = env.start_change(language, target=gateway.target)
    changing.finish()
    assert changing.retries() == [("RESOURCE_EXHAUSTED", "THROTTLED")]
    assert 1.9 < times[1] - times[0] < 5


# Time limits.


@every_language
def test_the_outcome_is_unknown_if_the_gateway_cannot_be_reached(env, language):
    start = time.monotonic()
    error = env.start_change(language, total_timeout=3).error()
    # The library cannot know that no attempt reached the gateway.
    assert error["outcome_unknown"] and error["executed"] is None
    assert time.monotonic() - start < 20


@every_language
def test_the_outcome_is_unknown_if_thingspace_does_not_answer(env, language):
    answered = threading.Event()
    env.respond = lambda body: (answered.wait(60), (200, {"requestId": REQUEST_ID}))[1]
    env.start_gateway()
    change = env.start_change(language, attempt_timeout=1, total_timeout=4)
    assert change.error()["outcome_unknown"], str(change)
    answered.set()
    assert len(change.retries()) >= 1 and len(env.thingspace.changes()) == 1


@every_language
def test_the_outcome_is_known_if_the_gateway_cannot_send_the_change(env, language):
    env.settings["thingspace__base_url"] = f"http://127.0.0.1:{free_port()}/api"
    env.start_gateway()
    change = env.start_change(language, total_timeout=10)
    error = change.error()
    assert not error["outcome_unknown"], str(change)
    assert ("UNAVAILABLE", "NOT_SENT") in change.retries(), str(change)


# Cancellation.


@every_language
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_watch_is_not_repeated(env, language, number):
    env.start_gateway()
    watch = env.watch(language, env.change(language))
    env.send_results(range(10))
    watch.wait_for_rows(10)
    watch.process.send_signal(number)
    assert watch.finish() == {"end": "cancelled"}, str(watch)
    assert watch.retries() == []


@every_language
def test_a_watch_is_cancelled_while_it_waits_for_the_gateway(env, language):
    watch = env.watch(language, "the-change")
    watch.wait_for(lambda: len(watch.retries()) >= 2)
    watch.process.terminate()
    start = time.monotonic()
    assert watch.finish() == {"end": "cancelled"}, str(watch)
    assert time.monotonic() - start < 5


@every_language
def test_a_cancelled_change_is_not_repeated(env, language):
    answered = threading.Event()
    env.respond = lambda body: (answered.wait(60), (200, {"requestId": REQUEST_ID}))[1]
    env.start_gateway()
    change = env.start_change(language)
    wait_until(env.thingspace.changes, lambda: str(change))
    change.process.terminate()
    assert change.finish() == {"end": "cancelled"}, str(change)
    answered.set()
    assert change.retries() == []


# TLS and tokens.


def start_with(env, trust):
    """Starts a gateway. Returns the arguments of programs, with the name in its certificate."""
    env.settings |= trust.settings
    env.start_gateway()
    return trust.arguments | {"target": env.target.replace("127.0.0.1", "localhost")}


@every_language
def test_tls_with_a_client_certificate(env, language, tmp_path):
    arguments = start_with(env, Trust(tmp_path, "mtls"))
    watch = env.watch(language, env.change(language, **arguments), **arguments)
    env.send_results(range(DEVICES))
    watch.assert_complete(range(DEVICES))


@every_language
def test_a_certificate_of_an_unknown_authority_is_refused(env, language, tmp_path):
    arguments = start_with(env, Trust(tmp_path, "mtls"))
    (tmp_path / "ca.pem").write_bytes(Authority("servers").pem)
    change = env.start_change(language, **arguments, total_timeout=2)
    assert "error" in change.finish(), str(change)
    assert env.thingspace.changes() == []


@every_language
def test_an_expired_token_is_replaced_in_the_middle_of_a_watch(env, language, tmp_path):
    trust = Trust(tmp_path, "jwt")
    arguments = start_with(env, trust)
    trust.write_token(3600)
    change_id = env.change(language, **arguments)
    trust.write_token(8)
    watch = env.watch(language, change_id, **arguments)
    env.send_results(range(10))
    watch.wait_for_rows(10)
    trust.write_token(3600)
    watch.wait_for(watch.retries)
    env.send_results(range(10, DEVICES))
    watch.assert_complete(range(DEVICES))
    assert watch.retries()[0] == ("UNAVAILABLE", "RECONNECT")


@every_language
def test_a_watch_ends_if_its_expired_token_is_not_replaced(env, language, tmp_path):
    trust = Trust(tmp_path, "jwt")
    arguments = start_with(env, trust)
    trust.write_token(3600)
    change_id = env.change(language, **arguments)
    trust.write_token(8)
    watch = env.watch(language, change_id, **arguments)
    env.send_results(range(10))
    error = watch.error()
    assert (error["code"], error["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), str(watch)
    assert watch.retries() == [("UNAVAILABLE", "RECONNECT"), ("UNAUTHENTICATED", "UNAUTHENTICATED")]
    assert watch.rows() == list(range(10))


@every_language
def test_a_change_with_an_expired_token_is_repeated_once(env, language, tmp_path):
    trust = Trust(tmp_path, "jwt")
    arguments = start_with(env, trust)
    trust.write_token(-5)
    change = env.start_change(language, **arguments)
    error = change.error()
    assert (error["code"], error["reason"]) == ("UNAUTHENTICATED", "UNAUTHENTICATED"), str(change)
    assert not error["outcome_unknown"]
    assert change.retries() == [("UNAUTHENTICATED", "UNAUTHENTICATED")]


@every_language
def test_a_repeated_change_uses_a_fresh_token(env, language, stubs, tmp_path):
    pb, _ = stubs
    trust = Trust(tmp_path, "jwt")
    seen = []

    def change(request, context):
        seen.append(dict(context.invocation_metadata())["authorization"])
        if len(seen) == 1:
            trust.token_file.write_text("second")
            details = {"retry": "LATER", "executed": "UNKNOWN", "retry_after": 30}
            abort(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", **details)
        return pb.ChangeEsimPlanResponse(change={"change_id": "c", "state": 3, "device_count": DEVICES})

    credentials = grpc.ssl_server_credentials([(trust.server.key, trust.server.certificate)])
    gateway = env.fake_gateway(stubs=stubs, change=change, credentials=credentials)
    trust.token_file.write_text("first")
    start = time.monotonic()
    changing = env.start_change(language, target=gateway.target, **trust.arguments)
    assert changing.finish()["state"] == "ACCEPTED", str(changing)
    assert seen == ["Bearer first", "Bearer second"]
    assert time.monotonic() - start < 20, "the repeated attempt is immediate"


@every_language
def test_a_token_is_not_sent_over_plaintext(env, language, stubs, tmp_path):
    requests = []
    gateway = env.fake_gateway(stubs=stubs, change=lambda request, context: requests.append(request))
    (tmp_path / "token").write_text("secret")
    change = env.start_change(language, target=gateway.target, token_file=tmp_path / "token")
    assert not change.error()["outcome_unknown"]
    assert change.retries() == [] and requests == []


# Packages.


@every_language
def test_google_rpc_comes_from_a_package_of_the_language(language):
    if language == "typescript":
        return  # No npm package contains it.
    generated = ROOT / GENERATED[language]
    assert any(path.is_file() for path in generated.rglob("*"))
    assert not list(generated.rglob("*google*rpc*")) and not list(generated.rglob("google/rpc"))
