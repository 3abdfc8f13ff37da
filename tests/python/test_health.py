"""The health protocol, with the official stubs."""

import grpc
import pytest
from conftest import TIMEOUT
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
GATEWAY = "thingspace.gateway.v1.GatewayService"


@pytest.fixture
def health(channel):
    return health_pb2_grpc.HealthStub(channel)


def request(service):
    return health_pb2.HealthCheckRequest(service=service)


@pytest.mark.parametrize("service", ["", GATEWAY])
def test_known_services_are_serving(health, service):
    assert health.Check(request(service), timeout=TIMEOUT).status == SERVING


def test_a_check_of_an_unknown_service_is_not_found(health):
    with pytest.raises(grpc.RpcError) as raised:
        health.Check(request("no.such.Service"), timeout=TIMEOUT)
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def test_all_services_are_listed(health):
    listed = health.List(health_pb2.HealthListRequest(), timeout=TIMEOUT).statuses
    assert {"", GATEWAY} <= set(listed)
    assert {status.status for status in listed.values()} == {SERVING}


def test_a_watch_of_an_unknown_service_reports_it_and_stays_open(health):
    stream = health.Watch(request("no.such.Service"), timeout=2)
    assert next(stream).status == SERVICE_UNKNOWN
    # The client's deadline ends it.
    with pytest.raises(grpc.RpcError) as raised:
        next(stream)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_watch_of_a_known_service_reports_its_state(health):
    stream = health.Watch(request(GATEWAY), timeout=TIMEOUT)
    assert next(stream).status == SERVING
    stream.cancel()
