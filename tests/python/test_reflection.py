"""A client that has no proto file: all that it knows it was told by reflection."""

import base64

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

PATIENCE = 60
SERVICE = "thingspace.gateway.v1.GatewayService"


class Stranger:
    """Calls methods by their names, with messages built from dictionaries."""

    def __init__(self, channel):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def message(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def call(self, method, **fields):
        """The answer to a call, or its error and the error's details by their types."""
        method = self.pool.FindServiceByName(SERVICE).FindMethodByName(method)
        invoke = self.channel.unary_unary(
            f"/{SERVICE}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(method.output_type.full_name).FromString,
        )
        request = self.message(method.input_type.full_name)(**fields)
        return invoke(request, timeout=PATIENCE)

    def details(self, error):
        """The details of an error: pairs of a type's name and a message."""
        trailers = dict(error.trailing_metadata())
        status = self.message("google.rpc.Status").FromString(trailers["grpc-status-details-bin"])
        assert status.code == error.code().value[0]
        named = [(any.type_url.rsplit("/", 1)[-1], any.value) for any in status.details]
        return [(name, self.message(name).FromString(value)) for name, value in named]


@pytest.fixture
def stranger(channel):
    return Stranger(channel)


def device(number, **fields):
    return {"eid": f"99{number:030}", "iccid": f"9994{number:016}"} | fields


def test_the_services_are_listed(stranger):
    services = set(stranger.database.get_services())
    assert {SERVICE, "grpc.health.v1.Health"} <= services
    methods = stranger.pool.FindServiceByName(SERVICE).methods_by_name
    assert {"ChangeEsimPlan", "ChangeFiveGBiPlan", "WatchRequest", "GetChange"} <= set(methods)


def test_a_change_can_be_made_and_read(stranger):
    made = stranger.call(
        "ChangeEsimPlan",
        account_name="0000123456-00001",
        service_plan="Plan",
        idempotency_key="reflected",
        devices=[device(1)],
    )
    assert made.change.device_count == 1
    read = stranger.call("GetChange", change_id=made.change.change_id)
    assert read.change.idempotency_key == "reflected"


def test_three_mistakes_are_told_at_once_each_by_its_path(stranger):
    with pytest.raises(grpc.RpcError) as raised:
        stranger.call(
            "ChangeEsimPlan",
            account_name="0000123456-00001",
            service_plan="O'Brien's plan",
            idempotency_key="three-mistakes",
            devices=[device(1), device(2, iccid="89148"), device(3, eid="not digits")],
        )
    error = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = stranger.details(error)

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
    wrong = [message for name, message in details if name == "google.rpc.BadRequest"]
    violations = {v.field: v.description for v in wrong[0].field_violations}
    assert len(wrong) == 1
    assert set(violations) == {"service_plan", "devices[1].iccid", "devices[2].eid"}
    assert all(violations.values())


def test_nine_thousand_mistakes_fit_into_what_any_client_reads(stranger):
    with pytest.raises(grpc.RpcError) as raised:
        stranger.call(
            "ChangeEsimPlan",
            account_name="0000123456-00001",
            service_plan="Plan",
            idempotency_key="nine-thousand",
            devices=[device(number, iccid="x") for number in range(9_000)],
        )
    error = raised.value
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert on_the_wire(error) < 8_192
    details = dict(stranger.details(error))
    metadata = details["google.rpc.ErrorInfo"].metadata
    told = details["google.rpc.BadRequest"].field_violations
    assert metadata["violations_total"] == "9000"
    assert metadata["violations_listed"] == str(len(told))
    assert [violation.field for violation in told] == [
        f"devices[{number}].iccid" for number in range(len(told))
    ]
    assert len(told) > 20
    assert error.details().endswith("(and 8999 more)")


def on_the_wire(error):
    """The size of all trailers as HTTP/2 counts it: 32 bytes for each, binary ones in base64."""
    trailers = list(error.trailing_metadata())
    trailers += [("grpc-status", "00"), ("grpc-message", error.details())]
    size = 0
    for name, value in trailers:
        if isinstance(value, bytes):
            value = base64.b64encode(value)
        size += len(name) + len(value) + 32
    return size


def test_an_unknown_method_has_its_reason_too(channel, stranger):
    invoke = channel.unary_unary(f"/{SERVICE}/NoSuchMethod")
    with pytest.raises(grpc.RpcError) as raised:
        invoke(b"", timeout=PATIENCE)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    [(name, info)] = stranger.details(raised.value)
    assert (name, info.reason) == ("google.rpc.ErrorInfo", "UNIMPLEMENTED")
