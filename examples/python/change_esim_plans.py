#!/usr/bin/env python3
"""Changes the service plan of some eSIM profiles and watches until each has its result.

Against `thingspace-gateway serve --sandbox` it needs no arguments. It keeps the two habits that a
client of the gateway needs: a failed call is repeated with the same key, and a watch that broke is
opened again with the last token.
"""

import argparse
import sys
import time
import uuid
from collections import Counter

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from thingspace.gateway.v1 import change_pb2, device_pb2, gateway_service_pb2
from thingspace.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub

TRIES = 6


class Problem:
    """What an error says: its ErrorInfo, and the fields that are wrong."""

    def __init__(self, error):
        self.code, self.message = error.code(), error.details()
        self.info, self.bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        status = rpc_status.from_call(error)  # None when the gateway did not make the error.
        for detail in status.details if status else []:
            detail.Unpack(self.info) or detail.Unpack(self.bad_request)

    @property
    def retry(self):
        """NOW, LATER or NEVER. What the gateway did not say may always be tried again."""
        return self.info.metadata.get("retry", "NOW")

    def __str__(self):
        lines = [f"{self.code.name} {self.info.reason}: {self.message}"]
        lines += [f"  {name} = {value}" for name, value in sorted(self.info.metadata.items())]
        lines += [f"  {wrong.field}: {wrong.description}" for wrong in self.bad_request.field_violations]
        return "\n".join(lines)


def pause(failures):
    """The wait after so many failures in a row."""
    time.sleep(min(0.1 * 2**failures, 10))


def sandbox_devices(count):
    """Identifiers from the ranges that the sandbox keeps for itself: no real device has them."""
    return [
        device_pb2.EsimDevice(
            eid=f"99{number:030}", iccid=f"9994{number:016}", client_reference=f"row-{number}"
        )
        for number in range(count)
    ]


def change(gateway, request):
    """Makes the change. The key makes it safe to repeat whatever happens."""
    for failures in range(TRIES):
        try:
            # Longer than the gateway waits for ThingSpace.
            return gateway.ChangeEsimPlan(request, timeout=90).change
        except grpc.RpcError as error:
            problem = Problem(error)
            if problem.retry == "NEVER" or failures == TRIES - 1:
                raise
            print(f"trying again with the same key: {problem}", file=sys.stderr)
            pause(failures)


def watch(gateway, change_id):
    """Yields every event of a change, each once, however often the stream breaks."""
    request = gateway_service_pb2.WatchRequestRequest(
        change_id=change_id, until=gateway_service_pb2.UNTIL_FINISHED
    )
    failures = 0
    while True:
        try:
            for message in gateway.WatchRequest(request):
                yield message
                # Only now: an event that was not handled is to come again.
                request.resume_token = message.resume_token
                failures = 0
            return
        except grpc.RpcError as error:
            # The server ended the stream, was restarted, or cannot be reached.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
            print("the stream broke; resuming with the last token", file=sys.stderr)
            pause(failures)
            failures += 1


def run(gateway, arguments):
    request = gateway_service_pb2.ChangeEsimPlanRequest(
        account_name=arguments.account,
        service_plan=arguments.plan,
        devices=sandbox_devices(arguments.devices),
        # One key for each change that is meant. Keep it where it survives a crash of yours.
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
    parser.add_argument("--target", default="127.0.0.1:50051", help="the gateway")
    parser.add_argument("--account", default="0000123456-00001", help="billing account")
    parser.add_argument("--plan", default="Example Plan", help="the plan to change to")
    parser.add_argument("--devices", type=int, default=10, help="how many, 1 to 10,000")
    parser.add_argument("--key", help="idempotency key; a new one unless given")
    arguments = parser.parse_args()

    with grpc.insecure_channel(arguments.target) as channel:
        try:
            return run(GatewayServiceStub(channel), arguments)
        except grpc.RpcError as error:
            print(Problem(error), file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
