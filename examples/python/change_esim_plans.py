#!/usr/bin/env python3
"""Changes the service plans of some eSIM profiles and prints the result of each.

It needs no arguments for a gateway that was started with `serve --sandbox`. README.md describes how
to run it.
"""

import sys

import gateway_client

from thingspace.gateway.v1 import device_pb2, gateway_service_pb2


def main():
    arguments = gateway_client.parse_arguments(__doc__.splitlines()[0])
    # Identifiers that are reserved for the sandbox.
    devices = [
        device_pb2.EsimDevice(
            eid=f"99{number:030}", iccid=f"9994{number:016}", client_reference=f"row-{number}"
        )
        for number in range(arguments.devices)
    ]
    request = gateway_service_pb2.ChangeEsimPlanRequest(
        account_name=arguments.account,
        service_plan=arguments.plan,
        devices=devices,
        idempotency_key=arguments.key,
    )
    return gateway_client.main("ChangeEsimPlan", request, arguments.target)


if __name__ == "__main__":
    sys.exit(main())
