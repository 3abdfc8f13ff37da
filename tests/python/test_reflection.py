"""A client without proto files, using server reflection."""

import base64

import grpc
import pytest
from conftest import TIMEOUT
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "thingspace.gateway.v1.GatewayService"


class ReflectionClient:
    """Calls methods by their names, with messages built from dictionaries."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, method, **fields):
        """Makes a call and returns the response."""
        method = self.pool.FindServiceByName(SERVICE).FindMethodByName(method)
        invoke = self.channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(method.output_type.full_name).FromString,
        )
        request = self.message(method.input_type.full_name)(**fields)
        return invoke(request, timeout=TIMEOUT)

    def details(self, error):
        """Returns the details of an error as pairs of a type name and a message."""
        trailers = dict(error.trailing_metadata())
        status = self.message("google.rpc.Status").FromString(trailers["grpc-status-details-bin"])
        assert status.code == error.code().value[0]
        named = [(any.type_url.rsplit("/", 1)[-1], any.value) for any in status.details]
        return [(name, self.message(name).FromString(value)) for name, value in named]


@pytest.fixture
def reflection_client(channel):
    return ReflectionClient(channel)


def device(number, **fields):
    return {"eid": f"99{number:030}", "iccid": f"9994{number:016}"} | fields


def test_the_services_are_listed(reflection_client):
    services = set(reflection_client.database.get_services())
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    methods = reflection_client.pool.FindServiceByName(SERVICE).methods_by_name
    assert {"ChangeEsimPlan", "ChangeFiveGBiPlan", "WatchRequest", "GetChange"} <= set(methods)


def test_a_change_can_be_made_and_read(reflection_client):
    made = reflection_client.call(
        "ChangeEsimPlan",
        account_name="0000123456-00001",
        service_plan="Plan",
        idempotency_key="reflected",
        devices=[device(1)],
    )
    assert made.change.device_count == 1
    read = reflection_client.call("GetChange", change_id=made.change.change_id)
    assert read.change.idempotency_key == "reflected"


def test_three_violations_are_reported_by_path(reflection_client):
    with pytest.raises(grpc.RpcError) as raised:
        reflection_client.call(
            "ChangeEsimPlan",
            account_name="0000123456-00001",
            service_plan="O'Brien's plan",
            idempotency_key="three-violations",
            devices=[device(1), device(2, iccid="89148"), device(3, eid="not digits")],
        )
    error = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = reflection_client.details(error)

    infos = [message for name, message in details if name == "google.rpc.ErrorInfo"]
    assert [(info.reason, info.domain) for info in infos] == [
        ("FIELD_INVALID", "thingspace.gateway")
    ]
    assert dict(infos[0].metadata) == {
        "retry": "NEVER",
        "executed": "NO",
        "violations_total": "3",
        "violations_listed": "3",
    }
    bad_requests = [message for name, message in details if name == "google.rpc.BadRequest"]
    violations = {v.field: v.description for v in bad_requests[0].field_violations}
    assert len(bad_requests) == 1
    assert set(violations) == {"service_plan", "devices[1].iccid", "devices[2].eid"}
    assert all(violations.values())


def test_nine_thousand_violations_fit_into_the_default_metadata_limit(reflection_client):
    with pytest.raises(grpc.RpcError) as raised:
        reflection_client.call(
            "ChangeEsimPlan",
            account_name="0000123456-00001",
            service_plan="Plan",
            idempotency_key="nine-thousand",
            devices=[device(number, iccid="x") for number in range(9_000)],
        )
    error = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert wire_size(error) < 8_192
    details = dict(reflection_client.details(error))
    metadata = details["google.rpc.ErrorInfo"].metadata
    violations = details["google.rpc.BadRequest"].field_violations
    assert metadata["violations_total"] == "9000"
    assert metadata["violations_listed"] == str(len(violations))
    assert [violation.field for violation in violations] == [
        f"devices[{number}].iccid" for number in range(len(violations))
    ]
    assert len(violations) > 20
    assert error.details().endswith("(and 8999 more)")


def wire_size(error):
    """Returns the size of all trailers by the rule of HTTP/2: 32 bytes for each, binary values in base64."""
    trailers = list(error.trailing_metadata())
    trailers += [("grpc-status", "00"), ("grpc-message", error.details())]
    size = 0
    for name, value in trailers:
        if isinstance(value, bytes):
            value = base64.b64encode(value)
        size += len(name) + len(value) + 32
    return size


def test_an_unknown_method_has_a_reason(channel, reflection_client):
    invoke = channel.unary_unary(f"/{SERVICE}/NoSuchMethod")
    with pytest.raises(grpc.RpcError) as raised:
        invoke(b"", timeout=TIMEOUT)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    [(name, info)] = reflection_client.details(raised.value)
    assert (name, info.reason) == ("google.rpc.ErrorInfo", "UNIMPLEMENTED")
