"""The conformance program. tests/python/test_conformance.py runs it."""

import json
import logging
import signal
import sys
import time
from pathlib import Path

import thingspace_gateway as tg
from thingspace_gateway import v1


def show(**line):
    print(json.dumps(line), flush=True)


def name(enum, value, prefix):
    return enum.Name(value).removeprefix(prefix) if value in enum.values() and value else None


def error_of(error):
    return {
        "code": error.code.name,
        "reason": error.reason_text or None,
        "retry": name(v1.Retry, error.retry, "RETRY_"),
        "executed": name(v1.Executed, error.executed, "EXECUTED_"),
        "outcome_unknown": error.outcome_unknown,
        "retry_after": error.retry_after,
        "field_violations": [vars(violation) for violation in error.field_violations],
        "message": error.message,
    }


def connect(arguments):
    token = None
    if "token_file" in arguments:
        token = Path(arguments["token_file"]).read_text
    return tg.connect(
        arguments["target"],
        plaintext="ca_file" not in arguments,
        ca=arguments.get("ca_file"),
        certificate=arguments.get("cert_file"),
        key=arguments.get("key_file"),
        token=token,
        keepalive=arguments.get("keepalive", 30),
    )


def change(client, arguments, cancellation):
    def on_retry(attempt):
        show(attempt=attempt.number, code=attempt.error.code.name, reason=attempt.error.reason_text or None)

    first = arguments.get("first", 0)
    request = v1.ChangeEsimPlanRequest(
        account_name=arguments["account"],
        idempotency_key=arguments["key"],
        service_plan=arguments["plan"],
        validate_only=arguments.get("validate_only", False),
        devices=[
            v1.EsimDevice(eid=f"99{n:030}", iccid=f"9994{n:016}", client_reference=f"row-{n}")
            for n in range(first, first + arguments["devices"])
        ],
    )
    options = {name: arguments[name] for name in ("attempt_timeout", "total_timeout") if name in arguments}
    made = client.change_esim_plan(request, on_retry=on_retry, cancellation=cancellation, **options).change
    state = name(v1.ChangeState, made.state, "CHANGE_STATE_")
    show(change_id=made.change_id, state=state, device_count=made.device_count)


def watch(client, arguments, cancellation):
    def on_retry(attempt):
        reason = attempt.error.reason_text or None
        show(retry={"code": attempt.error.code.name, "reason": reason, "resume_token": attempt.resume_token})

    options = {name: arguments[name] for name in ("idle_timeout",) if name in arguments}
    options |= {"on_retry": on_retry, "cancellation": cancellation}
    until = v1.Until.Value("UNTIL_" + arguments.get("until", "UNSPECIFIED"))
    token = arguments.get("resume_token", "")
    if arguments["do"] == "watch_account":
        request = v1.WatchAccountRequest(account_name=arguments["account"], resume_token=token, until=until)
        events = client.watch_account(request, **options)
    else:
        request = v1.WatchRequestRequest(
            change_id=arguments.get("change_id", ""),
            account_name=arguments.get("account", ""),
            idempotency_key=arguments.get("key", ""),
            resume_token=token,
            until=until,
        )
        events = client.watch(request, **options)
    results = 0
    for event in events:
        kind = event.WhichOneof("event")
        line = {"event": kind or "unknown", "resume_token": event.resume_token}
        if kind == "device_result":
            results += 1
            result = event.device_result
            line |= {"row": result.client_reference, "outcome": name(v1.Outcome, result.outcome, "OUTCOME_")}
            line |= {"change_id": result.change_id}
        elif kind in ("opened", "state_changed", "finished") and getattr(event, kind).HasField("change"):
            seen = getattr(event, kind).change
            line |= {"state": name(v1.ChangeState, seen.state, "CHANGE_STATE_"), "change_id": seen.change_id}
            line |= {"succeeded": seen.succeeded_count, "failed": seen.failed_count}
        show(**line)
        if kind == "device_result" and results == arguments.get("pause_at"):
            while not Path(arguments["pause_file"]).exists():
                time.sleep(0.05)
    show(end="ok")


def list_devices(client, arguments, cancellation):
    request = v1.ListDevicesRequest(change_id=arguments["change_id"], page_size=arguments["page_size"])
    show(rows=[device.client_reference for device in client.list_devices(request, cancellation=cancellation)])


def main():
    logging.basicConfig(level=logging.INFO)
    arguments = json.loads(sys.argv[1])
    cancellation = tg.Cancellation()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: cancellation.cancel())
    actions = {"change": change, "watch": watch, "watch_account": watch, "list": list_devices}
    try:
        with connect(arguments) as client:
            actions[arguments["do"]](client, arguments, cancellation)
    except tg.Cancelled:
        show(end="cancelled")
    except tg.GatewayError as error:
        show(error=error_of(error))
    except ValueError as error:
        empty = dict.fromkeys(("code", "reason", "retry", "executed", "retry_after"))
        show(error=empty | {"outcome_unknown": False, "field_violations": [], "message": str(error)})


if __name__ == "__main__":
    main()
