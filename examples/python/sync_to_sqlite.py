#!/usr/bin/env python3
"""Keeps an SQLite database in step with the changes of an account.

The program applies every event of the account exactly once, even if it or the gateway is killed.
README.md describes the tables and how to run it.
"""

import argparse
import sqlite3
import sys

import thingspace_gateway
from thingspace_gateway import v1

SCHEMA = """
CREATE TABLE IF NOT EXISTS position (
    account_name TEXT PRIMARY KEY,
    resume_token TEXT NOT NULL         -- Token of the last event that was applied.
);
CREATE TABLE IF NOT EXISTS change (
    change_id TEXT PRIMARY KEY,
    account_name TEXT NOT NULL,
    change_type TEXT NOT NULL,
    service_plan TEXT NOT NULL,
    state TEXT NOT NULL,
    device_count INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS device (
    change_id TEXT NOT NULL REFERENCES change ON DELETE CASCADE,
    device_index INTEGER NOT NULL,
    sent_ids TEXT NOT NULL,            -- Such as "eid 8904…, iccid 8914…".
    client_reference TEXT NOT NULL,
    outcome TEXT NOT NULL,             -- PENDING, SUCCEEDED or FAILED.
    fault_code TEXT NOT NULL,
    precedence INTEGER NOT NULL,       -- Precedence of the deciding result, 0 if there is none.
    PRIMARY KEY (change_id, device_index)
);
"""

# Sources of results, in increasing precedence. device.proto describes which result decides.
SOURCES = [v1.SOURCE_RECONCILED, v1.SOURCE_OPERATOR, v1.SOURCE_CALLBACK]


def precedence(result):
    """Returns the precedence of a final result, from 1 on."""
    return 1 + 2 * SOURCES.index(result.source) + (result.outcome == v1.OUTCOME_SUCCEEDED)


def outcome_name(result):
    return v1.Outcome.Name(result.outcome).removeprefix("OUTCOME_")


def apply_state(database, client, change):
    # Once ThingSpace has accepted the change, its devices can have outcomes. The list also has the devices
    # of results that arrived before, and of results whose device was found later.
    request = v1.ListDevicesRequest(change_id=change.change_id, page_size=1000)
    devices = list(client.list_devices(request)) if change.request_ids else []
    database.execute(
        """INSERT INTO change VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET state = excluded.state""",
        (
            change.change_id,
            change.account_name,
            v1.ChangeType.Name(change.change_type).removeprefix("CHANGE_TYPE_"),
            change.service_plan,
            v1.ChangeState.Name(change.state).removeprefix("CHANGE_STATE_"),
            change.device_count,
        ),
    )
    for device in devices:
        has_result = device.HasField("result")
        database.execute(
            "INSERT OR REPLACE INTO device VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                change.change_id,
                device.device_index,
                ", ".join(f"{sent.kind} {sent.id}" for sent in device.sent_ids),
                device.client_reference,
                outcome_name(device.result) if has_result else "PENDING",
                device.result.fault.code,
                precedence(device.result) if has_result else 0,
            ),
        )


def apply_result(database, result):
    # A result has no change if its request was made elsewhere, or if it arrived before ThingSpace
    # accepted the change. Such a result can have the change of another account, which has no rows here.
    # It has no index if no device could be identified.
    is_final = result.outcome in (v1.OUTCOME_SUCCEEDED, v1.OUTCOME_FAILED)
    if result.change_id and result.HasField("device_index") and is_final:
        database.execute(
            """UPDATE device
               SET outcome = :outcome, fault_code = :fault_code, precedence = :precedence
               WHERE change_id = :change_id AND device_index = :device_index
                 AND precedence < :precedence""",
            {
                "change_id": result.change_id,
                "device_index": result.device_index,
                "outcome": outcome_name(result),
                "fault_code": result.fault.code,
                "precedence": precedence(result),
            },
        )


def sync(database, client, account, until):
    """Applies the events of an account from the stored token on."""
    stored = database.execute("SELECT resume_token FROM position WHERE account_name = ?", (account,))
    (token,) = stored.fetchone() or ("",)
    request = v1.WatchAccountRequest(account_name=account, resume_token=token, until=until)
    for message in client.watch_account(request):
        # One transaction applies the event and stores its token, so both happen or neither.
        with database:
            event = message.WhichOneof("event")
            if event == "state_changed":
                apply_state(database, client, message.state_changed.change)
            elif event == "device_result":
                apply_result(database, message.device_result)
            database.execute(
                "INSERT OR REPLACE INTO position VALUES (?, ?)", (account, message.resume_token)
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="127.0.0.1:50051", help="address of the gateway")
    parser.add_argument("--account", default="0000123456-00001", help="billing account")
    parser.add_argument("--database", default="devices.db", help="file of the database")
    parser.add_argument("--once", action="store_true", help="exit after the last stored event")
    parser.add_argument(
        "--rebuild", action="store_true", help="delete the account's rows, and read all stored events"
    )
    arguments = parser.parse_args()
    account = arguments.account
    until = v1.UNTIL_CAUGHT_UP if arguments.once else v1.UNTIL_UNSPECIFIED

    database = sqlite3.connect(arguments.database)
    database.executescript("PRAGMA foreign_keys = ON;" + SCHEMA)
    if arguments.rebuild:
        with database:
            database.execute("DELETE FROM change WHERE account_name = ?", (account,))
            database.execute("DELETE FROM position WHERE account_name = ?", (account,))
    with thingspace_gateway.connect(arguments.target, plaintext=True) as client:
        try:
            sync(database, client, account, until)
        except thingspace_gateway.GatewayError as error:
            print(error, file=sys.stderr)
            if error.reason == v1.REASON_RESUME_TOKEN_EXPIRED:
                print(
                    "The gateway no longer has all events after the last one in this database. "
                    "Run the program again with --rebuild.",
                    file=sys.stderr,
                )
            return 1
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
