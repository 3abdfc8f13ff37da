"""Traces and metrics, as a collector and Prometheus receive them."""

import base64
import re
import time
import urllib.request
import uuid

import collector as otlp
import grpc
import pytest
from conftest import ROOT
from planted import PLACE
from prometheus_client.parser import text_string_to_metric_families
from fake_thingspace import CREDENTIALS, SESSION, TOKEN, FakeThingSpace, callback, post

CHANGE = "thingspace.gateway.v1.GatewayService/ChangeEsimPlan"


def esim(pb, key, devices, start=0):
    return pb.ChangeEsimPlanRequest(
        account_name="0000123456-00001",
        service_plan="Example Plan",
        idempotency_key=key,
        devices=[
            {"eid": f"8904903200000100000000000{n:07}", "iccid": f"8914800000080{n:07}"}
            for n in range(start, start + devices)
        ],
    )


def scrape(gateway):
    with urllib.request.urlopen(f"http://{gateway.admin}/metrics", timeout=60) as response:
        return response.read().decode()


def samples(gateway, name, **labels):
    """Returns the sum of all samples with this name and these labels."""
    families = text_string_to_metric_families(scrape(gateway))
    found = [s for family in families for s in family.samples if s.name == name]
    expected = labels.items()
    return sum(s.value for s in found if all(s.labels.get(k) == v for k, v in expected))


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_trace_goes_from_the_client_to_thingspace_and_every_callback_links_to_it(
    start, stubs, tmp_path, protocol
):
    pb, Stub = stubs
    received, request = otlp.Collector(), esim(pb, "traced", 3)
    request_id = str(uuid.uuid4())

    def early(_):
        # A callback can arrive before the response to its request.
        assert post(gateway, callback(request_id, request.devices[0].iccid)) == 200
        return 200, {"requestId": request_id}

    upstream = FakeThingSpace(early)
    serve = otlp.serve_grpc if protocol == "grpc" else otlp.serve_http
    endpoint, end = serve(received)
    settings = CREDENTIALS | {
        "thingspace__base_url": upstream.base_url,
        "callbacks__listen": "127.0.0.1:0",
        "journal__dir": str(tmp_path),
        "telemetry__otlp_endpoint": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    trace_id, caller = uuid.uuid4().hex, uuid.uuid4().hex[:16]

    gateway = start(**settings)
    with grpc.insecure_channel(gateway.address) as channel:
        metadata = [("traceparent", f"00-{trace_id}-{caller}-01")]
        change = Stub(channel).ChangeEsimPlan(request, metadata=metadata, timeout=60).change
    assert post(gateway, callback(request_id, request.devices[1].iccid)) == 200
    assert gateway.stop() == 0
    assert "http.client.request.duration" in received.metric_names, "metrics are flushed at the end"

    gateway = start(**settings)
    assert post(gateway, callback(request_id, request.devices[2].iccid)) == 200

    def linked(spans):
        results = [s for s in spans if s.links]
        return len(results) == 3 and results

    results = received.wait_for(linked)
    spans = [s for s in received.spans if s.trace_id.hex() == trace_id]
    (rpc,) = [s for s in spans if s.name == CHANGE]
    assert (rpc.parent_span_id.hex(), rpc.kind) == (caller, rpc.SPAN_KIND_SERVER)
    of_rpc = otlp.attributes(rpc)
    assert of_rpc["rpc.system.name"] == "grpc" and of_rpc["rpc.response.status_code"] == "OK"
    assert of_rpc["thingspace_gateway.change_id"] == change.change_id

    name = "POST /m2m/v1/devices/profile/actions/serviceplan"
    (call,) = [s for s in spans if s.name == name]
    assert (call.parent_span_id, call.kind) == (rpc.span_id, call.SPAN_KIND_CLIENT)
    assert otlp.attributes(call)["http.response.status_code"] == 200
    (_, headers, _) = upstream.changes()[0]
    assert headers["traceparent"] == f"00-{trace_id}-{call.span_id.hex()}-01"

    for result in results:
        (link,) = result.links
        assert (link.trace_id.hex(), link.span_id) == (trace_id, rpc.span_id)
        assert result.trace_id.hex() != trace_id and result.kind == result.SPAN_KIND_SERVER
        assert result.name == "POST /callbacks/{service}/{secret}"
        assert otlp.attributes(result)["thingspace_gateway.request_id"] == request_id
        assert result.end_time_unix_nano > result.start_time_unix_nano
    end()


def test_the_metrics_agree_with_what_was_done(start, stubs, tmp_path):
    pb, Stub = stubs
    upstream = FakeThingSpace()
    settings = CREDENTIALS | {
        "thingspace__base_url": upstream.base_url,
        "callbacks__listen": "127.0.0.1:0",
        "journal__dir": str(tmp_path),
    }
    gateway = start(**settings)
    done = []
    with grpc.insecure_channel(gateway.address) as channel:
        stub = Stub(channel)
        for number in range(5):
            request = esim(pb, f"key-{number}", 4, start=10 * number)
            done.append((request, stub.ChangeEsimPlan(request, timeout=60).change))
        for wrong in [esim(pb, "key-0", 1, start=90), esim(pb, "", 1)]:
            with pytest.raises(grpc.RpcError):
                stub.ChangeEsimPlan(wrong, timeout=60)
        # 18 results, of which 3 are sent again: 16 finish four changes, and 2 leave one change open.
        bodies = [
            callback(change.request_ids[0], device.iccid)
            for request, change in done
            for device in request.devices
        ][:18]
        for body in bodies + [body | {"callbackCount": 2} for body in bodies[:3]]:
            assert post(gateway, body) == 200

        watch = stub.WatchRequest(pb.WatchRequestRequest(change_id=done[4][1].change_id))
        next(iter(watch))
        open_watches = samples(gateway, "thingspace_gateway_watches_open")

    calls = {"rpc_method": CHANGE}
    of = lambda **labels: samples(gateway, "rpc_server_call_duration_seconds_count", **labels)
    assert of(**calls) == 7
    assert of(**calls, rpc_response_status_code="OK") == 5
    assert of(**calls, rpc_response_status_code="INVALID_ARGUMENT") == 1
    assert of(**calls, rpc_response_status_code="FAILED_PRECONDITION") == 1

    upstream_calls = samples(
        gateway, "http_client_request_duration_seconds_count",
        url_template="/m2m/v1/devices/profile/actions/serviceplan", http_response_status_code="200",
    )
    assert upstream_calls == 5 == len(upstream.changes())
    listener = samples(
        gateway, "http_server_request_duration_seconds_count",
        http_route="/callbacks/{service}/{secret}", http_response_status_code="200",
    )
    assert listener == 21
    outcome = lambda name: samples(
        gateway, "thingspace_gateway_callbacks_total", thingspace_gateway_outcome=name
    )
    assert (outcome("stored"), outcome("duplicate"), outcome("rejected")) == (18, 3, 0)
    state = lambda name: samples(gateway, "thingspace_gateway_changes", thingspace_gateway_state=name)
    assert (state("FINISHED"), state("ACCEPTED"), state("QUEUED")) == (4, 1, 0)
    assert open_watches == 1
    appended = lambda operation: samples(
        gateway, "thingspace_gateway_journal_write_duration_seconds_count",
        thingspace_gateway_operation=operation,
    )
    # The response of each of the five changes, and the dispatch of the first one, which waited for the log-in.
    # The others were dispatched in the commit of their claim.
    assert (appended("callback"), appended("claim"), appended("transition")) == (21, 6, 6)
    assert samples(gateway, "thingspace_gateway_journal_batch_size_sum") >= 33

    # docs/telemetry.md lists exactly the exposed metrics.
    manual = (ROOT / "docs" / "telemetry.md").read_text()
    described = set(re.findall(r"^\| `([a-z_]+)` \|", manual.partition("## Metrics")[2], re.M))
    exposed = {re.search(r"[a-z_]+", line[7:])[0] for line in scrape(gateway).splitlines() if line.startswith("# TYPE")}
    # Metrics that need a collector, an unlisted address, a registration, forwarding, a spool, replicas or TLS.
    needs = ("_telemetry_", "_after_timeout_", "_outside_allow_cidrs_", "_registration", "_forward_", "_spool_")
    needs += ("_replica", "_tls_certificate_")
    rare = {name for name in described if any(word in name for word in needs)}
    assert exposed - described == set() and described - exposed <= rare

    # The counts by state are read from the journal.
    assert gateway.stop() == 0
    gateway = start(**settings)
    assert (state("FINISHED"), state("ACCEPTED")) == (4, 1)


def test_no_secret_name_or_address_is_in_any_span_metric_or_log_line(start, stubs, tmp_path):
    pb, Stub = stubs
    received = otlp.Collector()
    endpoint, end = otlp.serve_grpc(received)

    def respond(body):
        # ThingSpace repeats the invalid values.
        place = body["deviceListWithServiceAddress"][0]["primaryPlaceOfUse"]
        message = f"{place['customerName']['lastName']} at {place['address']['addressLine1']}?"
        return 400, {"errorCode": "UnifiedWebService.INPUT_INVALID.Address", "errorMessage": message}

    upstream = FakeThingSpace(respond)
    gateway = start(
        **CREDENTIALS,
        thingspace__base_url=upstream.base_url,
        callbacks__listen="127.0.0.1:0",
        journal__dir=str(tmp_path),
        telemetry__log_filter="trace",
        telemetry__otlp_endpoint=endpoint,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=planted-collector-token",
    )
    request = pb.ChangeFiveGBiPlanRequest(
        account_name="0000123456-00001",
        service_plan="EXAMPLE",
        idempotency_key="planted",
        devices=[
            {
                "device_ids": [{"kind": "meid", "id": "A100003685E561"}],
                "primary_place_of_use": PLACE,
            }
        ],
    )
    with grpc.insecure_channel(gateway.address) as channel:
        metadata = [
            ("traceparent", f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01"),
            ("authorization", "Bearer planted-caller-token"),
        ]
        stub = Stub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ChangeFiveGBiPlan(request, metadata=metadata, timeout=60)
        assert "INPUT_INVALID.Address" in str(refused.value.trailing_metadata())
        request.devices[0].primary_place_of_use.address.address_line1 = "17 Planted's street"
        with pytest.raises(grpc.RpcError):
            stub.ChangeFiveGBiPlan(request, metadata=metadata, timeout=60)
    body = callback("some-request", esim(pb, "", 1).devices[0].iccid)
    assert post(gateway, body) == 200
    assert post(gateway, body | {"password": "planted-wrong-password"}) == 200
    assert post(gateway, body, secret="planted-wrong-secret-99") == 404
    assert post(gateway, body, service="planted-path-secret-1234") == 200
    assert post(gateway, b'{"password": "planted-broken') == 200
    assert samples(gateway, "thingspace_gateway_callbacks_total", thingspace_gateway_outcome="quarantined") == 2
    metrics = scrape(gateway)
    assert gateway.stop() == 0
    end()

    output = "\n".join([*gateway.log, metrics, received.received.decode(errors="replace")])
    assert len(received.spans) >= 7 and len(gateway.log) > 10
    assert TOKEN in str(upstream.changes()[0][1]), "the planted token was in use"
    basic = base64.b64encode(b"planted-app-key:planted-app-secret").decode()
    assert any(basic in headers["authorization"] for _, headers, _ in upstream.requests)
    for secret in [r"[Pp]lanted[-s a-z]", TOKEN, SESSION, basic]:
        found = re.search(f".*{secret}.*", output)
        assert not found, found.group(0)[:500]


def test_an_unavailable_collector_is_counted_and_logged_once(start, stubs):
    pb, Stub = stubs
    gateway = start(
        telemetry__otlp_endpoint="http://127.0.0.1:9",
        OTEL_BSP_SCHEDULE_DELAY="20",
        OTEL_EXPORTER_OTLP_TIMEOUT="200",
    )
    devices = [{"eid": "99" + "0" * 29 + "1", "iccid": "9994" + "0" * 15 + "1"}]
    with grpc.insecure_channel(gateway.address) as channel:
        request = pb.ChangeEsimPlanRequest(
            account_name="0000123456-00001", service_plan="P", idempotency_key="k", devices=devices
        )
        change = Stub(channel).ChangeEsimPlan(request, timeout=60).change
        watch = pb.WatchRequestRequest(change_id=change.change_id)
        assert [m.WhichOneof("event") for m in Stub(channel).WatchRequest(watch)][-1] == "finished"

    deadline = time.monotonic() + 60
    failed = {"thingspace_gateway_outcome": "failure"}
    while not samples(gateway, "thingspace_gateway_telemetry_spans_exported_total", **failed):
        assert time.monotonic() < deadline
    assert gateway.stop() == 0
    lines = [line for line in gateway.log if "collector" in line]
    assert len(lines) == 1, lines
