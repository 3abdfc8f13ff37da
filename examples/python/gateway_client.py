"""Calls the gateway, repeats failed calls, and resumes broken watches.

The examples share this module. Copy it into your own program.
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

from thingspace.gateway.v1 import change_pb2, device_pb2, error_pb2, watch_pb2
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
        """The value of error_pb2.Reason, or REASON_UNSPECIFIED for a reason that is not known here."""
        known = error_pb2.Reason.DESCRIPTOR.values_by_name.get(f"REASON_{self.info.reason}")
        return known.number if known else error_pb2.REASON_UNSPECIFIED

    @property
    def is_final(self):
        """True if the call must not be repeated.

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
        if time.monotonic() - self.start > 60:  # The stream worked for a while.
            self.failures = 0
        delay = random.uniform(0.5, 1) * 0.1 * 2 ** min(self.failures, 7)
        if details.retry_info.HasField("retry_delay"):
            delay = details.retry_info.retry_delay.ToTimedelta().total_seconds()
        print(f"repeating the call: {details}", file=sys.stderr)
        time.sleep(delay)
        self.failures, self.start = self.failures + 1, time.monotonic()


def call(method, request):
    """Repeats a call until the gateway has answered it.

    `method` is a method of the stub. The gateway makes one change for each key, so repeating a change
    call is safe."""
    backoff = Backoff()
    while True:
        try:
            # The deadline is longer than the gateway waits for ThingSpace.
            return method(request, timeout=90)
        except grpc.RpcError as error:
            details = ErrorDetails(error)
            if details.is_final:
                raise
        backoff.wait(details)


def watch(gateway, change_id):
    """Yields every event of a change once, also if the stream breaks."""
    request = watch_pb2.WatchRequestRequest(change_id=change_id, until=watch_pb2.UNTIL_FINISHED)
    return stream(gateway.WatchRequest, request)


def watch_account(gateway, account, resume_token="", until=watch_pb2.UNTIL_UNSPECIFIED):
    """Yields every event of an account after the token once, also if the stream breaks."""
    request = watch_pb2.WatchAccountRequest(
        account_name=account, resume_token=resume_token, until=until
    )
    return stream(gateway.WatchAccount, request)


def stream(method, request):
    """Opens a stream, and opens it again with the last token until it ends with OK."""
    backoff = Backoff()
    while True:
        try:
            for message in method(request):
                yield message
                # The caller has processed the event. A new stream continues after it.
                request.resume_token = message.resume_token
                if message.WhichOneof("event") == "reconnect":
                    time.sleep(message.reconnect.retry_after.ToTimedelta().total_seconds())
            return
        except grpc.RpcError as error:
            # A broken stream can have any code. If you cancel the call yourself, return here.
            details = ErrorDetails(error)
            if details.is_final:
                raise
        backoff.wait(details)


def print_results(gateway, change_id):
    """Watches a change until it is finished and prints each result. Returns the exit code."""
    seen = Counter()
    finished = change_pb2.Change()
    for message in watch(gateway, change_id):
        event = message.WhichOneof("event")
        seen[event] += 1
        if event == "device_result":
            result = message.device_result
            fault = f" {result.fault.code}" if result.HasField("fault") else ""
            print(f"{result.client_reference} {device_pb2.Outcome.Name(result.outcome)}{fault}")
        elif event == "finished":
            finished = message.finished.change
    print(
        f"{change_pb2.ChangeState.Name(finished.state)}: {finished.device_count} devices, "
        f"{finished.succeeded_count} succeeded, {finished.failed_count} failed, "
        f"{finished.pending_count} pending; {seen['device_result']} results, "
        f"{seen['opened'] - 1} resumed"
    )
    return 0 if finished.state == change_pb2.CHANGE_STATE_FINISHED else 1


def parse_arguments(description):
    """Parses the command line of an example."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--target", default="127.0.0.1:50051", help="address of the gateway")
    parser.add_argument("--account", default="0000123456-00001", help="billing account")
    parser.add_argument("--plan", default="Example Plan", help="service plan to change to")
    parser.add_argument("--devices", type=int, default=10, help="number of devices, 1 to 10,000")
    # A program that can crash must store the key before the first call.
    parser.add_argument(
        "--key", default=str(uuid.uuid4()), help="idempotency key (default: a new one)"
    )
    return parser.parse_args()


def main(method, request, target):
    """Calls the change method with this name, and prints the results. Returns the exit code."""
    # Keepalive detects a connection that is lost without an error.
    options = [("grpc.keepalive_time_ms", 30_000)]
    with grpc.insecure_channel(target, options) as channel:
        gateway = GatewayServiceStub(channel)
        try:
            made = call(getattr(gateway, method), request).change
            print(f"change {made.change_id} is {change_pb2.ChangeState.Name(made.state)}")
            return print_results(gateway, made.change_id)
        except grpc.RpcError as error:
            print(ErrorDetails(error), file=sys.stderr)
            return 1
