#!/usr/bin/env python3
"""Changes the service plans of some devices and prints the result of each.

It needs no arguments for a gateway that was started with `serve --sandbox`. README.md describes how
to run it.
"""

import argparse
import sys
import uuid

import thingspace_gateway
from thingspace_gateway import v1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="127.0.0.1:50051", help="address of the gateway")
    parser.add_argument("--account", default="0000123456-00001", help="billing account")
    parser.add_argument("--operation", choices=["esim", "service"], default="esim", help="kind of devices")
    parser.add_argument("--plan", default="Example Plan", help="service plan to change to")
    parser.add_argument("--devices", type=int, default=10, help="number of devices, 1 to 10,000")
    # A program that can crash must store the key before the first call.
    parser.add_argument(
        "--key", default=str(uuid.uuid4()), help="idempotency key (default: a new one)"
    )
    arguments = parser.parse_args()
    with thingspace_gateway.connect(arguments.target, plaintext=True) as client:
        try:
            return change_and_watch(client, arguments)
        except thingspace_gateway.GatewayError as error:
            print(error, file=sys.stderr)
            return 1


def change_and_watch(client, arguments):
    repeated = []

    def on_retry(attempt):
        repeated.append(attempt)
        print(f"attempt {attempt.number} failed: {attempt.error}", file=sys.stderr)

    common = {
        "account_name": arguments.account,
        "service_plan": arguments.plan,
        "idempotency_key": arguments.key,
    }
    # The identifiers are reserved for the sandbox.
    if arguments.operation == "esim":
        devices = [
            v1.EsimDevice(eid=f"99{n:030}", iccid=f"9994{n:016}", client_reference=f"row-{n}")
            for n in range(arguments.devices)
        ]
        request = v1.ChangeEsimPlanRequest(devices=devices, **common)
        change = client.change_esim_plan(request, on_retry=on_retry).change
    else:
        devices = [
            v1.ServicePlanDevice(
                device_ids=[v1.DeviceId(kind="meid", id=f"FF00000{n:07X}")], client_reference=f"row-{n}"
            )
            for n in range(arguments.devices)
        ]
        request = v1.ChangeServicePlanRequest(devices=devices, **common)
        change = client.change_service_plan(request, on_retry=on_retry).change
    print(f"change {change.change_id} is {v1.ChangeState.Name(change.state)}")

    results = 0
    watch = v1.WatchRequestRequest(change_id=change.change_id, until=v1.UNTIL_FINISHED)
    for event in client.watch(watch, on_retry=on_retry):
        kind = event.WhichOneof("event")
        if kind == "device_result":
            results += 1
            result = event.device_result
            print(result.client_reference, v1.Outcome.Name(result.outcome), result.fault.code)
        elif kind == "finished":
            change = event.finished.change
    print(
        f"{v1.ChangeState.Name(change.state)}: {change.device_count} devices, "
        f"{change.succeeded_count} succeeded, {change.failed_count} failed, "
        f"{change.pending_count} pending; {results} results, {len(repeated)} repeated attempts"
    )
    return 0 if change.state == v1.CHANGE_STATE_FINISHED else 1


if __name__ == "__main__":
    sys.exit(main())
