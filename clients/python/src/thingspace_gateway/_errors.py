"""Errors of calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from thingspace.gateway.v1 import error_pb2

DOMAIN = "thingspace.gateway"


@dataclass(frozen=True)
class FieldViolation:
    """An invalid field of a request."""

    #: The path of the field, such as `devices[17].iccid`.
    field: str
    #: The name of a value of `FieldReason` without its prefix, such as `FORMAT`.
    reason: str
    #: A text for people.
    description: str


class GatewayError(Exception):
    """A call failed, and the library does not repeat it.

    Branch on `reason`, or on `retry` and `outcome_unknown`. `__cause__` is the error of gRPC. If the time limit
    of the call has passed, it is the error of the last attempt."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason_text: str = "",
        metadata: dict[str, str] | None = None,
        retry_after: float | None = None,
        field_violations: tuple[FieldViolation, ...] = (),
        outcome_unknown: bool = False,
    ):
        super().__init__(message)
        #: The status code.
        self.code = code
        #: A text for people. Do not parse it.
        self.message = message
        #: `ErrorInfo.reason`, such as `DEVICE_BUSY`. Empty if the gateway did not send the error.
        self.reason_text = reason_text
        #: `ErrorInfo.metadata`, such as `change_id`.
        self.metadata = metadata or {}
        #: The delay in seconds before the next attempt, if the error contains one.
        self.retry_after = retry_after
        #: The invalid fields, if the reason is `REASON_FIELD_INVALID`.
        self.field_violations = field_violations
        #: True if ThingSpace may have executed the change, or may still execute it. To find out,
        #: repeat the change with the same key, or call `get_change` with the key.
        self.outcome_unknown = outcome_unknown

    @property
    def reason(self) -> int:
        """The value of `v1.Reason`. `REASON_UNSPECIFIED` for a reason that this version does not know."""
        return _value(error_pb2.Reason, "REASON_", self.reason_text)

    @property
    def retry(self) -> int:
        """The value of `v1.Retry`. `RETRY_UNSPECIFIED` if the gateway did not send the error."""
        return _value(error_pb2.Retry, "RETRY_", self.metadata.get("retry", ""))

    @property
    def executed(self) -> int:
        """The value of `v1.Executed`: `executed` of this error alone.

        After a change, read `outcome_unknown`, which also covers earlier attempts."""
        return _value(error_pb2.Executed, "EXECUTED_", self.metadata.get("executed", ""))

    def __str__(self) -> str:
        lines = [" ".join(filter(None, (self.code.name, self.reason_text))) + f": {self.message}"]
        lines += [f"  {v.field}: {v.description} ({v.reason})" for v in self.field_violations]
        return "\n".join(lines)

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> GatewayError:
        """Reads the details of an error of gRPC, such as one that the raw stub raises."""
        info = error_details_pb2.ErrorInfo()
        request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        for detail in _details(error):
            for known in (info, request, retry):
                try:
                    detail.Unpack(known)
                except DecodeError:
                    pass
        is_known = info.domain == DOMAIN
        converted = cls(
            error.code(),
            error.details() or "",
            reason_text=info.reason if is_known else "",
            metadata=dict(info.metadata) if is_known else {},
            retry_after=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
            field_violations=tuple(
                FieldViolation(v.field, v.reason, v.description) for v in request.field_violations
            ),
        )
        converted.__cause__ = error
        return converted


class TokenFunctionError(GatewayError):
    """The token function failed, so the attempt was not sent."""


class Cancelled(GatewayError):
    """The program cancelled the call. `outcome_unknown` is set as for other errors."""

    def __init__(self, outcome_unknown: bool = False):
        super().__init__(
            grpc.StatusCode.CANCELLED, "cancelled by the program", outcome_unknown=outcome_unknown
        )


def _details(error: grpc.RpcError) -> Iterable[Any]:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value).details
            except DecodeError:
                break
    return ()


def _seconds(duration: Duration) -> float:
    return max(0.0, duration.seconds + duration.nanos / 1e9)


def _value(enum: Any, prefix: str, name: str) -> int:
    known = enum.DESCRIPTOR.values_by_name.get(prefix + name)
    return int(known.number) if known else 0
