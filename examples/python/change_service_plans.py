#!/usr/bin/env python3
"""Changes the service plans of some ordinary devices and prints the result of each.

Ordinary devices are neither eSIM profiles nor 5G Business Internet devices. The program needs no
arguments for a gateway that was started with `serve --sandbox`. README.md describes how to run it.
"""

import sys

import gateway_client

from thingspace.gateway.v1 import device_pb2, gateway_service_pb2


def main():
    arguments = gateway_client.parse_arguments(__doc__.splitlines()[0])
    # Identifiers that are reserved for the sandbox. A device can also have an ICCID, IMEI or MDN.
    devices = [
        device_pb2.ServicePlanDevice(
            device_ids=[device_pb2.DeviceId(kind="meid", id=f"FF00000{number:07X}")],
            client_reference=f"row-{number}",
        )
        for number in range(arguments.devices)
    ]
    request = gateway_service_pb2.ChangeServicePlanRequest(
        account_name=arguments.account,
        service_plan=arguments.plan,
        devices=devices,
        idempotency_key=arguments.key,
    )
    return gateway_client.main("ChangeServicePlan", request, arguments.target)


if __name__ == "__main__":
    sys.exit(main())
