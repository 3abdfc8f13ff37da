"""The health protocol, with the stubs that everybody uses."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

PATIENCE = 60
SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
GATEWAY = "thingspace.gateway.v1.GatewayService"


@pytest.fixture
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


def ask(service):
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", GATEWAY])
def test_what_serves_is_serving(health, service):
    assert health.Check(ask(service), timeout=PATIENCE).status == SERVING


def test_a_check_of_an_unknown_service_is_not_found(health):
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(ask("no.such.Service"), timeout=PATIENCE)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_all_services_are_listed(health):
    listed = health.List(health_pb2.HealthListRequest(), timeout=PATIENCE).statuses
    assert {"", GATEWAY} <= set(listed)
    assert {status.status for status in listed.values()} == {SERVING}


def test_a_watch_of_an_unknown_service_says_so_and_stays_open(health):
    stream = health.Watch(ask("no.such.Service"), timeout=2)
    assert next(stream).status == SERVICE_UNKNOWN
    # It ends by our own deadline, not by the server's will.
    with pytest.raises(grpc.RpcError) as raised:
        next(stream)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_watch_of_a_known_service_tells_its_state(health):
    stream = health.Watch(ask(GATEWAY), timeout=PATIENCE)
    assert next(stream).status == SERVING
    stream.cancel()
