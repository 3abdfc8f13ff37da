#!/usr/bin/env python3
"""Changes the service plans of some eSIM profiles and prints the result of each.

It needs no arguments for a gateway that was started with `serve --sandbox`. README.md describes how
to run it.
"""

import argparse
import random
import sys
import time
import uuid
from collections import Counter

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from thingspace.gateway.v1 import change_pb2, device_pb2, error_pb2, gateway_service_pb2, watch_pb2
from thingspace.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub


class ErrorDetails:
    """The details of an error.

    An error without an ErrorInfo does not come from the gateway, but from a proxy or from the gRPC
    library."""

    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.retry_info = error_details_pb2.RetryInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status else []:
            for known in (self.info, self.bad_request, self.retry_info):
                detail.Unpack(known)

    @property
    def reason(self):
        """A value of error_pb2.Reason. REASON_UNSPECIFIED for a reason that is not known here."""
        known = error_pb2.Reason.DESCRIPTOR.values_by_name.get(f"REASON_{self.info.reason}")
        return known.number if known else error_pb2.REASON_UNSPECIFIED

    @property
    def is_final(self):
        """Whether not to repeat the call.

        A change call whose outcome is unknown is repeated in any case. Other calls have no
        "executed"."""
        metadata = self.info.metadata
        return metadata.get("retry") == "NEVER" and metadata.get("executed") != "UNKNOWN"

    def __str__(self):
        lines = [f"{self.code.name} {self.info.reason}: {self.message}"]
        lines += [f"  {name} = {value}" for name, value in sorted(self.info.metadata.items())]
        if self.reason == error_pb2.REASON_FIELD_INVALID:
            lines += [
                f"  {field.field}: {field.description} ({field.reason})"
                for field in self.bad_request.field_violations
            ]
        return "\n".join(lines)


class Backoff:
    """The delays between the attempts of a call: 0.1 s to 12.8 s with jitter, unless the error names one."""

    def __init__(self):
        self.failures, self.start = 0, time.monotonic()

    def wait(self, details):
        if time.monotonic() - self.start > 60:  # A stream that worked for a while.
            self.failures = 0
        delay = random.uniform(0.5, 1) * 0.1 * 2 ** min(self.failures, 7)
        if details.retry_info.HasField("retry_delay"):
            delay = details.retry_info.retry_delay.ToTimedelta().total_seconds()
        print(f"repeating the call: {details}", file=sys.stderr)
        time.sleep(delay)
        self.failures, self.start = self.failures + 1, time.monotonic()


def sandbox_devices(count):
    """Devices with identifiers that are reserved for the sandbox."""
    return [
        device_pb2.EsimDevice(
            eid=f"99{number:030}", iccid=f"9994{number:016}", client_reference=f"row-{number}"
        )
        for number in range(count)
    ]


def change(gateway, request):
    """Repeats the call until the change is stored.

    The gateway makes one change for each key, so repeating the call is safe."""
    backoff = Backoff()
    while True:
        try:
            # The deadline is longer than the gateway waits for ThingSpace.
            return gateway.ChangeEsimPlan(request, timeout=90).change
        except grpc.RpcError as error:
            details = ErrorDetails(error)
            if details.is_final:
                raise
        backoff.wait(details)


def watch(gateway, change_id):
    """Yields every event of a change once, also if the stream breaks."""
    request = watch_pb2.WatchRequestRequest(change_id=change_id, until=watch_pb2.UNTIL_FINISHED)
    backoff = Backoff()
    while True:
        try:
            for message in gateway.WatchRequest(request):
                yield message
                # The caller has processed the event. A new stream continues after it.
                request.resume_token = message.resume_token
            return
        except grpc.RpcError as error:
            # A broken stream can have any code. If you cancel the call yourself, return here.
            details = ErrorDetails(error)
            if details.is_final:
                raise
        backoff.wait(details)


def run(gateway, arguments):
    request = gateway_service_pb2.ChangeEsimPlanRequest(
        account_name=arguments.account,
        service_plan=arguments.plan,
        devices=sandbox_devices(arguments.devices),
        # A program that may crash stores the key before the first call.
        idempotency_key=arguments.key or str(uuid.uuid4()),
    )
    made = change(gateway, request)
    print(f"change {made.change_id} is {change_pb2.ChangeState.Name(made.state)}")

    seen = Counter()
    for message in watch(gateway, made.change_id):
        event = message.WhichOneof("event")
        seen[event] += 1
        if event == "device_result":
            result = message.device_result
            fault = f" {result.fault.code}" if result.HasField("fault") else ""
            print(f"{result.client_reference} {device_pb2.Outcome.Name(result.outcome)}{fault}")
        elif event == "reconnect":
            time.sleep(message.reconnect.retry_after.ToTimedelta().total_seconds())
        elif event == "finished":
            made = message.finished.change
    print(
        f"{change_pb2.ChangeState.Name(made.state)}: {made.device_count} devices, "
        f"{made.succeeded_count} succeeded, {made.failed_count} failed, "
        f"{made.pending_count} pending; {seen['device_result']} results, "
        f"{seen['opened'] - 1} resumed"
    )
    return 0 if made.state == change_pb2.CHANGE_STATE_FINISHED else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="127.0.0.1:50051", help="address of the gateway")
    parser.add_argument("--account", default="0000123456-00001", help="billing account")
    parser.add_argument("--plan", default="Example Plan", help="service plan to change to")
    parser.add_argument(
        "--devices", type=int, default=10, help="number of eSIM profiles, 1 to 10,000"
    )
    parser.add_argument("--key", help="idempotency key (default: a new one)")
    arguments = parser.parse_args()

    # Keepalive detects a connection that is lost without notice.
    options = [("grpc.keepalive_time_ms", 30_000)]
    with grpc.insecure_channel(arguments.target, options) as channel:
        try:
            return run(GatewayServiceStub(channel), arguments)
        except grpc.RpcError as error:
            print(ErrorDetails(error), file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
