"""The rows of the benchmark. Each row measures several servers."""

import contextlib
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

from harness.build import TARGET
from harness.database import Database
from harness.servers import (
    CALLBACK_PATH, USERNAME, Failure, Floor, Gateway, LoadProcess, Peer, Rig, free_port, load)

READ_BODY = Floor(("http",))
GROUP_COMMIT = Floor(("file", "{directory}/appended"))
FORWARD = Floor(("forward", "{url}/change"))
FORWARD_FRESH = Floor(("forward", "{url}/change", "--fresh"))
COPY = Floor(("postgres", "{database}"))


@dataclass
class Column:
    """A figure of a row. `key` is a path into the result, such as `latency_ms.p99`."""

    key: str
    title: str
    decimals: int = 0
    divisor: float = 1


@dataclass
class Row:
    name: str
    title: str
    cases: dict[str, Callable[[], dict]]
    columns: list[Column]
    note: str = ""
    rounds: int | None = None
    # True to plot the first column.
    plot: bool = True
    # Closed after the last round, for servers that serve several rounds.
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass
class Options:
    quick: bool
    gateways: dict[str, pathlib.Path]
    seconds: float | None = None
    ten_million: bool = False

    def cases(self, measure, floors=(), peer=True, credentials=False):
        """Returns a function for each server: the gateways, the Go service and the floors."""
        contenders = {name: Gateway(path, credentials=credentials) for name, path in self.gateways.items()}
        if peer:
            contenders["Go service"] = Peer(credentials=credentials)
        contenders |= dict(floors)
        return {name: (lambda contender=contender: measure(contender)) for name, contender in contenders.items()}

    def secured_cases(self, measure):
        """Returns a function for each gateway without TLS, and for each with TLS, an identity of callers and a policy."""
        identities = {"plaintext": None, "TLS, certificate": "certificate", "TLS, token": "token"}
        contenders = {f"{name}, {title}": Gateway(path, identity=identity)
                      for name, path in self.gateways.items() for title, identity in identities.items()}
        return {name: (lambda contender=contender: measure(contender)) for name, contender in contenders.items()}


RATE = Column("per_second", "per second")
CPU = Column("cpu_us", "CPU µs")
LOAD_CPU = Column("load_cpu_us", "load generator's CPU µs", 1)
DATABASE_CPU = Column("database_cpu_us", "PostgreSQL's CPU µs")
WRITTEN = Column("written_bytes", "bytes written")
P50 = Column("latency_ms.p50", "p50 ms", 2)
P99 = Column("latency_ms.p99", "p99 ms", 2)
REFUSED = Column("refused", "refused")
REPLAY_COLUMNS = [Column("per_second", "results per second"), Column("cpu_us", "CPU µs", 2),
                  Column("load_cpu_us", "load generator's CPU µs", 2)]


def rows(options):
    """Returns the rows by their names. Some are too slow for --quick."""
    made = [
        callbacks_row("callbacks-256", "Callbacks, 256 connections", options, 256, floors=True),
        callbacks_row("callbacks-16", "Callbacks, 16 connections", options, 16, floors=True),
        callbacks_row("callbacks-shuffled", "Callbacks, 256 connections, devices in any order", options, 256,
                      order="shuffled"),
        callbacks_row("callbacks-spread", "Callbacks, 256 connections, changes of 100 devices in turn", options, 256,
                      order="spread"),
        paced_row(options),
        change_row("change-64", 64, options),
        change_row("change-1", 1, options),
        large_change_row(options),
        replay_row(options),
        fanout_row(options),
        watches_row(options),
        idle_row("idle-one", "Idle watches of one change", options, one_change=True),
        idle_row("idle-many", "Idle watches, each of another change", options, one_change=False),
        stored_row(options),
        postgres_callbacks_row(options),
        postgres_paced_row(options),
        postgres_replicas_row(options),
        postgres_standby_row(options),
        postgres_stored_row(options),
        secured_changes_row(options),
        secured_replay_row(options),
        footprint_row(options),
        quarantine_row(options),
        attribution_row(options),
        unknown_row(options),
        reader_row(options),
    ]
    return {row.name: row for row in made if row}


# Callbacks


def callbacks_row(name, title, options, connections, order="as-sent", floors=False):
    seconds = options.seconds or (2 if options.quick else 5)
    if options.quick and not floors:
        return None

    def measure(contender):
        with Rig(contender) as rig:
            per_second = 40_000 if contender.knows_changes else 150_000
            devices = 100 if order == "spread" else 10_000
            rig.make_changes(int(seconds * per_second / devices), devices, concurrency=8 if devices < 1_000 else 1)
            return throughput(rig, "--connections", connections, "--seconds", seconds, "--order", order)

    return Row(
        name, title,
        options.cases(measure, {"floor (a): read the body": READ_BODY, "floor (b): file, group commit": GROUP_COMMIT}
                      if floors else {}),
        [RATE, P50, P99, CPU, LOAD_CPU, WRITTEN, REFUSED],
        rounds=None if floors else 3,
    )


def throughput(rig, *arguments, accepted=None):
    """Sends callbacks, and measures what they cost the server."""
    with rig.measured() as cost:
        result = rig.callbacks(*arguments, accepted=accepted)
    return cost.add_to(result, result["acknowledged"])


def paced_row(options):
    seconds = options.seconds or (4 if options.quick else 15)

    def measure(contender):
        with Rig(contender) as rig:
            rig.make_changes(int(seconds * 1_000 / 10_000) + 1, 10_000, concurrency=1)
            watch = ["--watch", rig.server.grpc] if contender.knows_changes else []
            return throughput(rig, "--connections", 64, "--seconds", seconds, "--rate", 1_000, *watch)

    return Row(
        "paced", "1,000 callbacks a second, open loop, one watcher",
        options.cases(measure, {"floor (b): file, group commit": GROUP_COMMIT}),
        [P50, P99, Column("watch_ms.p50", "watcher p50 ms", 2), Column("watch_ms.p99", "watcher p99 ms", 2), CPU,
         WRITTEN, REFUSED],
        note="The delay to the watcher starts when the callback is sent.", rounds=3,
    )


# Changes


def change_row(name, concurrency, options):
    cases = options.cases(lambda contender: measure_changes(contender, concurrency, options), {
        "floor (a): forward, connection kept": FORWARD, "floor (b): forward, new connections": FORWARD_FRESH})
    if concurrency == 1:
        cases["write and fdatasync, 1 kB"] = measure_fdatasync
    return Row(name, f"ChangeEsimPlan, 1 device, {concurrency} at a time", cases,
               [RATE, P50, P99, CPU, LOAD_CPU, WRITTEN])


def measure_changes(contender, concurrency, options):
    """Measures changes of one device."""
    seconds = options.seconds or (1.5 if options.quick else 4)
    with Rig(contender) as rig:
        warm_up = rig.load("changes", "--first", 90_000_000, "--count", 10 * concurrency,
                           "--concurrency", concurrency)
        count = int(seconds * warm_up["per_second"]) + concurrency
        return change_cost(rig, count, 1, concurrency)


def secured_changes_row(options):
    cases = options.secured_cases(lambda contender: measure_changes(contender, 64, options))
    return Row("secured-change-64", "ChangeEsimPlan, 1 device, 64 at a time, with TLS, identity and policy", cases,
               [RATE, P50, P99, CPU, LOAD_CPU], plot=False)


def change_cost(rig, count, devices, concurrency):
    with rig.measured() as cost:
        result = rig.load("changes", "--count", count, "--devices", devices, "--concurrency", concurrency)
    return cost.add_to(result, count)


def measure_fdatasync():
    with tempfile.NamedTemporaryFile(dir=Rig.parent) as file:
        times = []
        for _ in range(500):
            file.write(b"x" * 1_000)
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - start) * 1e3)
    quantiles = statistics.quantiles(times, n=100)
    return {"per_second": 1e3 / statistics.mean(times), "latency_ms": {"p50": quantiles[49], "p99": quantiles[98]}}


def large_change_row(options):
    devices = 10_000

    def measure(contender):
        with Rig(contender) as rig:
            rig.load("changes", "--first", 90_000_000, "--devices", devices)
            # The processor time of a process is counted in steps of 10 ms.
            count = (5 if options.quick else 20) if contender.knows_changes else 50
            result = change_cost(rig, count, devices, 1)
            result["cpu_ms"] = result["cpu_us"] / 1e3
            result["bytes_per_device"] = result["written_bytes"] / devices
            return result

    return Row(
        "change-10000", "ChangeEsimPlan, 10,000 devices", options.cases(measure, {"floor: forward": FORWARD}),
        [Column("cpu_ms", "CPU ms", 1), P50, Column("bytes_per_device", "bytes written, a device"),
         Column("load_cpu_us", "load generator's CPU ms", 1, 1e3)],
    )


# Watches


def replay_row(options):
    results = 20_000 if options.quick else 100_000
    # The floors are faster, and need more for a measurable time.
    floor_results = 10 * results
    return Row(
        "replay", f"Replay of {results:,} stored results, one watcher",
        options.cases(lambda contender: measure_replay(contender, results, floor_results, options), {
            "floor (a): from memory": Floor(("stream", str(floor_results))),
            "floor (b): encode each": Floor(("stream", str(floor_results), "--encode"))}),
        REPLAY_COLUMNS, rounds=3,
    )


def measure_replay(contender, results, floor_results, options):
    """Measures the replay of stored results."""
    with Rig(contender) as rig:
        if contender.knows_changes:
            expected = results
            rig.store_results(results)
            # A first pass, as the floors have the results in memory.
            rig.load("replay", "--accepted", rig.accepted)
        else:
            expected = floor_results
            rig.make_changes(1, expected)
        end, passes = time.monotonic() + (options.seconds or 0), []
        with rig.measured() as cost:
            while not passes or time.monotonic() < end:
                passes.append(rig.load("replay", "--accepted", rig.accepted))
        for result in passes:
            if result["messages"] != expected:
                raise Failure(f"{result['messages']} of {expected} results were replayed")
        load_cpu_seconds = sum(result["load_cpu_seconds"] for result in passes)
        return cost.add_to(passes[-1] | {"load_cpu_seconds": load_cpu_seconds}, len(passes) * expected)


def secured_replay_row(options):
    results = 20_000 if options.quick else 100_000
    cases = options.secured_cases(lambda contender: measure_replay(contender, results, 0, options))
    return Row("secured-replay", f"Replay of {results:,} stored results, with TLS, identity and policy", cases,
               REPLAY_COLUMNS, rounds=3, plot=False)


def fan_out(contender, watchers, results):
    """Sends the results of a change to many watchers while its callbacks arrive."""
    if isinstance(contender, Peer):
        # It is slow, and a tenth is enough for a rate.
        results //= 10
    with Rig(contender) as rig, contextlib.ExitStack() as stack:
        rig.make_changes(1, results)
        with rig.measured() as cost:
            fanout = LoadProcess("fanout", "--target", rig.server.grpc, "--accepted", rig.accepted,
                                 "--watchers", watchers)
            stack.callback(fanout.close)
            fanout.wait_until_ready()
            if contender.knows_changes:
                rig.callbacks("--connections", 64)
            result = fanout.result()
        return cost.add_to(result, result["messages"])


FANOUT_COLUMNS = [Column("per_second", "results per second"), Column("cpu_us", "CPU µs", 2),
                  Column("load_cpu_us", "load generator's CPU µs", 2)]


def fanout_row(options):
    watchers, results = 200, 2_000 if options.quick else 10_000
    floor = Floor(("stream", str(results), "--watchers", str(watchers)))
    measure = lambda contender: fan_out(contender, watchers, results)
    return Row(
        "fanout", f"Live fan-out: {results:,} results to {watchers} watchers",
        options.cases(measure, {"floor: from memory": floor}), FANOUT_COLUMNS,
        note="For the gateway and the Go service, the callbacks of the results arrive at the same time.",
        rounds=None if options.quick else 10,
    )


def watches_row(options):
    """From 1 to 10,000 watches, with about as many messages in total."""
    if options.quick:
        return None
    cases = {}
    for watchers in (1, 10, 100, 1_000, 10_000):
        results = min(10_000, 2_000_000 // watchers)
        measure = lambda contender, watchers=watchers, results=results: fan_out(contender, watchers, results)
        floor = Floor(("stream", str(results), "--watchers", str(watchers)))
        for name, case in options.cases(measure, {"floor": floor}, peer=watchers <= 1_000).items():
            cases[f"{name}, {watchers:,} watches"] = case
    return Row("watches", "Live fan-out to 1 to 10,000 watches of one change", cases, FANOUT_COLUMNS, rounds=3,
               note="With few watches, the rate is that of the callbacks.")


def idle_row(name, title, options, one_change):
    watches = 1_000 if options.quick else 10_000

    def measure(contender):
        with Rig(contender) as rig:
            if contender.knows_changes:
                rig.make_changes(1 if one_change else watches, 1, concurrency=64)
                # Memory that the changes needed must not serve the watches.
                rig.restart()
            arguments = ["--accepted", rig.accepted] if contender.knows_changes else []
            # Warms up.
            warm_up = LoadProcess("idle", "--target", rig.server.grpc, "--watches", 1, *arguments)
            warm_up.wait_until_ready()
            warm_up.result()
            time.sleep(1)
            before = rig.server.resident_bytes()
            idle = LoadProcess("idle", "--target", rig.server.grpc, "--watches", watches, *arguments)
            try:
                idle.wait_until_ready()
                time.sleep(2)
                memory = rig.server.resident_bytes() - before
                cpu, seconds = rig.server.cpu_seconds(), 2 if options.quick else 5
                time.sleep(seconds)
                cpu = (rig.server.cpu_seconds() - cpu) / seconds
            finally:
                idle.close()
            return {"bytes_per_watch": memory / watches, "cpu_share": cpu * 100}

    return Row(
        name, f"{title}: {watches:,} watches", options.cases(measure, {"floor: bare tonic streams": Floor(("idle",))}),
        [Column("bytes_per_watch", "kB a watch", 1, 1e3), Column("cpu_share", "CPU %", 2)], rounds=2,
    )


# Size


def stored_row(options):
    """The same work with more and more results in the journal."""
    sizes = [1_000, 10_000] if options.quick else [1_000, 10_000, 100_000, 1_000_000]
    if options.ten_million:
        sizes.append(10_000_000)
    row = Row(
        "stored", "Results in the journal", {},
        [Column("per_second", "callbacks per second"), CPU, Column("open.opened_ms.p50", "watch open p50 ms", 2),
         Column("open.opened_ms.p99", "watch open p99 ms", 2), Column("start_seconds", "start s", 3),
         Column("start_bytes", "memory after the start, MB", 1, 1e6),
         Column("memory_bytes", "memory after the load, MB", 1, 1e6),
         Column("stored_bytes", "bytes a result on disk")],
        note="The watches are of new changes of 10 devices, the callbacks of new changes of 100 devices in turn.",
        rounds=3,
    )
    seconds = options.seconds or (2 if options.quick else 4)

    def measure(contender, size, kept):
        with contextlib.ExitStack() as stack:
            rig = kept.get(contender)
            if rig is None:
                # A large journal serves all rounds. Each adds a few per cent to it.
                keep = size >= 1_000_000
                rig = (row.stack if keep else stack).enter_context(Rig(contender))
                rig.store_results(size)
                if keep:
                    kept[contender] = rig
                rig.restart()
                rig.stored_bytes = rig.journal_bytes() / size
            rig.restart()
            time.sleep(1)
            result = {"start_seconds": rig.server.seconds_to_ready, "start_bytes": rig.server.resident_bytes(),
                      "stored_bytes": rig.stored_bytes}
            few = rig.make_changes(20, 10)
            rig.callbacks("--connections", 16, accepted=few)
            result["open"] = load("open", "--target", rig.server.grpc, "--accepted", few, "--count", 400)
            many = rig.make_changes(int(seconds * 200), 100, concurrency=8)
            result |= throughput(rig, "--connections", 256, "--seconds", seconds, "--order", "spread", accepted=many)
            result["memory_bytes"] = rig.server.resident_bytes()
            return result

    row.cases = cases_of_sizes(options, sizes, measure)
    return row


def cases_of_sizes(options, sizes, measure):
    """A case for each gateway and number of stored results. The rounds of a size share what `measure` keeps."""
    cases = {}
    for size in sizes:
        kept = {}
        measure_size = lambda contender, size=size, kept=kept: measure(contender, size, kept)
        for name, case in options.cases(measure_size, peer=False).items():
            cases[f"{name}, {size:,} results"] = case
    return cases


def footprint_row(options):
    def measure(contender):
        with Rig(contender) as rig:
            first = rig.server.seconds_to_ready
            time.sleep(2)
            memory = rig.server.resident_bytes()
            rig.restart()
            return {"start_ms": first * 1e3, "restart_ms": rig.server.seconds_to_ready * 1e3, "memory": memory,
                    "binary": stripped_bytes(contender.program)}

    return Row(
        "footprint", "Start, idle memory, binary", options.cases(measure, {"floor: bare tonic forwarder": FORWARD}),
        [Column("start_ms", "start to ready ms"), Column("restart_ms", "second start ms"),
         Column("memory", "idle memory MB", 1, 1e6), Column("binary", "binary, stripped, MB", 1, 1e6)],
        note="The gateway is ready when `/readyz` is 200, the others when their ports are open.", plot=False,
    )


def stripped_bytes(program):
    with tempfile.NamedTemporaryFile(dir=TARGET) as file:
        if not shutil.which("strip"):
            return program.stat().st_size
        subprocess.run(["strip", "-o", file.name, program], check=True)
        return os.stat(file.name).st_size


# PostgreSQL


POSTGRES_COLUMNS = [RATE, P50, P99, CPU, DATABASE_CPU, LOAD_CPU, WRITTEN, REFUSED]
STANDBY = lambda directory: Database(directory, standby=True)


def database_throughput(contender, seconds, start_database=Database, replicas=1):
    """Sends callbacks on 256 connections to servers that store them in PostgreSQL."""
    with Rig(contender, start_database=start_database, replicas=replicas) as rig:
        per_second = 25_000 if contender.knows_changes else 60_000
        rig.make_changes(int(seconds * per_second / 10_000) + 1, 10_000, concurrency=1)
        return throughput(rig, "--connections", 256, "--seconds", seconds)


def postgres_callbacks_row(options):
    seconds = options.seconds or (2 if options.quick else 8)
    return Row(
        "postgres-callbacks-256", "PostgreSQL: callbacks, 256 connections",
        options.cases(lambda contender: database_throughput(contender, seconds), {"floor: COPY": COPY}, peer=False),
        POSTGRES_COLUMNS,
    )


def postgres_paced_row(options):
    if options.quick:
        return None
    seconds = options.seconds or 15

    def measure(contender, start_database):
        with Rig(contender, start_database=start_database) as rig:
            rig.make_changes(int(seconds * 1_000 / 10_000) + 1, 10_000, concurrency=1)
            watch = ["--watch", rig.server.grpc] if contender.knows_changes else []
            return throughput(rig, "--connections", 64, "--seconds", seconds, "--rate", 1_000, *watch)

    return Row(
        "postgres-paced", "PostgreSQL: 1,000 callbacks a second, open loop, one watcher",
        with_and_without_standby(options, measure),
        [P50, P99, Column("watch_ms.p50", "watcher p50 ms", 2), Column("watch_ms.p99", "watcher p99 ms", 2), CPU,
         DATABASE_CPU, WRITTEN, REFUSED],
        note="The delay to the watcher starts when the callback is sent.", rounds=3,
    )


def with_and_without_standby(options, measure):
    cases = {}
    for suffix, start_database in (("", Database), (", synchronous standby", STANDBY)):
        measure_one = lambda contender, start_database=start_database: measure(contender, start_database)
        for name, case in options.cases(measure_one, {"floor: COPY": COPY}, peer=False).items():
            cases[name + suffix] = case
    return cases


def postgres_replicas_row(options):
    if options.quick:
        return None
    seconds = options.seconds or 8
    cases = {}
    for replicas in (1, 2, 3):
        measure = lambda contender, replicas=replicas: database_throughput(contender, seconds, replicas=replicas)
        for name, case in options.cases(measure, peer=False).items():
            cases[f"{name}, {replicas} {'replica' if replicas == 1 else 'replicas'}"] = case
    return Row("postgres-replicas", "PostgreSQL: callbacks to one to three replicas, 256 connections in all", cases,
               POSTGRES_COLUMNS, rounds=3,
               note="All replicas, PostgreSQL and the load generator share the processors of one machine.")


def postgres_standby_row(options):
    if options.quick:
        return None
    seconds = options.seconds or 8
    measure = lambda contender, start_database: database_throughput(contender, seconds, start_database)
    return Row("postgres-standby", "PostgreSQL: callbacks with a synchronous standby, 256 connections",
               with_and_without_standby(options, measure), POSTGRES_COLUMNS, rounds=3,
               note="The standby is on the same machine and disk. PostgreSQL's figures contain those of the standby.")


def postgres_stored_row(options):
    """The start of a new replica while another one runs."""
    sizes = [10_000] if options.quick else [10_000, 1_000_000]
    row = Row(
        "postgres-stored", "PostgreSQL: a new replica beside stored results", {},
        [Column("start_seconds", "start s", 3), Column("start_bytes", "memory after the start, MB", 1, 1e6),
         Column("open.opened_ms.p50", "watch open p50 ms", 2), Column("open.opened_ms.p99", "watch open p99 ms", 2),
         Column("per_second", "callbacks per second"), CPU, DATABASE_CPU],
        note="The new replica is ready when its `/readyz` is 200. The watches are at it, of new changes of 10 devices; "
             "the callbacks are sent to both replicas.",
        rounds=3,
    )
    seconds = options.seconds or (1 if options.quick else 4)

    def measure(contender, size, kept):
        if contender not in kept:
            # The results serve all rounds.
            kept[contender] = row.stack.enter_context(Rig(contender, start_database=Database))
            kept[contender].store_results(size)
        rig = kept[contender]
        replica = rig.add_replica()
        result = {"start_seconds": replica.seconds_to_ready, "start_bytes": replica.resident_bytes()}
        few = rig.make_changes(20, 10)
        rig.callbacks("--connections", 16, accepted=few)
        result["open"] = load("open", "--target", replica.grpc, "--accepted", few, "--count", 400)
        many = rig.make_changes(int(seconds * 25_000 / 10_000) + 1, 10_000, concurrency=1)
        result |= throughput(rig, "--connections", 256, "--seconds", seconds, accepted=many)
        rig.servers.pop().close()
        return result

    row.cases = cases_of_sizes(options, sizes, measure)
    return row


# Pressures


PRESSURE_COLUMNS = [Column("acknowledged", "good callbacks answered 200"), REFUSED, P50, P99,
                    Column("latency_ms.max", "max ms", 1), Column("server_cpu", "CPU s", 1)]


def pressure_row(name, title, options, measure, note, credentials=False):
    """Measures each gateway without and with the pressure."""
    cases = {}
    for pressed in (False, True):
        def measure_one(contender, pressed=pressed):
            result, cost = measure(contender, pressed)
            return result | {"server_cpu": cost.cpu_seconds}

        for case, function in options.cases(measure_one, peer=False, credentials=credentials).items():
            cases[f"{case}, {'under pressure' if pressed else 'without'}"] = function
    return Row(name, title, cases, PRESSURE_COLUMNS, note=note, rounds=2, plot=False)


def trickle(rig, *arguments):
    """Makes ordinary changes, and sends their callbacks."""
    return LoadProcess("trickle", "--target", rig.server.grpc, "--address", rig.server.callbacks, "--path",
                       CALLBACK_PATH, *arguments)


def quarantine_row(options):
    seconds = options.seconds or (5 if options.quick else 20)

    def measure(contender, pressed):
        with Rig(contender) as rig:
            wrong = rig.make_changes(1, 8_000, accepted=rig.directory / "wrong.jsonl")
            more = rig.make_changes(2, 10_000, accepted=rig.directory / "more.jsonl", concurrency=1)
            rig.make_changes(1, 10_000)
            password = ["--connections", 400, "--username", USERNAME, "--password", "the old password"]
            if pressed:
                rig.callbacks(*password, accepted=wrong)
            with rig.measured() as cost, contextlib.ExitStack() as stack:
                if pressed:
                    flood = rig.callbacks(*password, "--rate", 1_000, "--seconds", seconds, accepted=more,
                                          background=True)
                    stack.callback(flood.close)
                result = rig.callbacks("--connections", 64, "--rate", 100, "--seconds", seconds)
            return result, cost

    return pressure_row(
        "quarantine", "Pressure: quarantine", options, measure, credentials=True,
        note="8,000 callbacks from 400 senders with the old password are in the quarantine, and 1,000 more arrive "
             "each second. 100 good callbacks a second.")


def attribution_row(options):
    seconds = options.seconds or (10 if options.quick else 24)

    def measure(contender, pressed):
        with Rig(contender) as rig:
            rig.make_changes(1, 1_000)
            if pressed:
                # Other profiles of the same eSIMs, so that each of the changes has all EIDs of the request.
                for number in range(1, 21):
                    load("changes", "--target", rig.server.grpc, "--first", number * 100_000_000,
                         "--devices", 10_000, "--lost")
            with rig.measured() as cost, contextlib.ExitStack() as stack:
                if pressed:
                    foreign = rig.make_foreign_request(10_000, first=0)
                    foreign = rig.callbacks("--connections", 16, accepted=foreign, background=True)
                    stack.callback(foreign.close)
                ordinary = trickle(rig, "--rate", 2, "--seconds", seconds)
                stack.callback(ordinary.close)
                result = rig.callbacks("--connections", 16, "--rate", 20, "--seconds", seconds)
                result["change_ms"] = ordinary.result()["change_ms"]
            return result, cost

    row = pressure_row(
        "attribution", "Pressure: attribution", options, measure,
        note="20 changes of 10,000 devices with an unknown outcome, a foreign request with 10,000 results of the same "
             "eSIMs, two ordinary changes and 20 good callbacks a second.")
    row.columns = [*row.columns, Column("change_ms.p99", "change p99 ms", 1)]
    return row


def unknown_row(options):
    if options.quick:
        return None
    seconds = options.seconds or 15
    changes, devices = 100_000, 3
    port = free_port()
    filled = {}

    def fill(contender):
        """Returns a copy of a journal with many changes that are finished."""
        copy = pathlib.Path(row.stack.enter_context(tempfile.TemporaryDirectory(prefix="filled-", dir=Rig.parent)))
        with Rig(contender, port) as rig:
            rig.make_changes(changes, devices, concurrency=64)
            rig.callbacks("--connections", 256)
            rig.server.close()
            shutil.copytree(rig.directory / "journal", copy / "journal", ignore=shutil.ignore_patterns("*.sock"))
        return copy / "journal"

    def measure(contender, pressed):
        if contender not in filled:
            filled[contender] = fill(contender)
        with Rig(contender, port, journal=filled[contender]) as rig:
            rig.next_device = changes * devices
            if pressed:
                rig.make_changes(1, 10, lost=True)
            rig.make_changes(1, 10_000)
            with rig.measured() as cost:
                ordinary = trickle(rig, "--rate", 2, "--seconds", seconds)
                result = rig.callbacks("--connections", 64, "--rate", 500, "--seconds", seconds)
                ordinary.result()
            return result, cost

    row = pressure_row(
        "unknown-change", f"Pressure: an unknown change beside {changes * devices:,} stored results", options, measure,
        note=f"{changes:,} finished changes with {changes * devices:,} results are stored. 500 good callbacks and two "
             "changes a second. The pressure is one change with an unknown outcome.")
    return row


def reader_row(options):
    seconds = options.seconds or (6 if options.quick else 20)

    def measure(contender, pressed):
        with Rig(contender) as rig:
            rig.make_changes(int(seconds * 1_000 / 10_000) + 1, 10_000, concurrency=1)
            stop, log_bytes = threading.Event(), []
            reader = threading.Thread(target=read_for_long, args=(rig.server.database, stop, log_bytes))
            with rig.measured() as cost:
                if pressed:
                    reader.start()
                result = rig.callbacks("--connections", 64, "--rate", 1_000, "--seconds", seconds)
                stop.set()
                if pressed:
                    reader.join()
            result["log_bytes"] = max(log_bytes, default=0)
            return result, cost

    row = pressure_row(
        "foreign-reader", "Pressure: another process reads the database", options, measure,
        note="Another process holds read transactions of 4 s on the live database. 1,000 good callbacks a second.")
    row.columns = [*row.columns, Column("log_bytes", "write-ahead log, MB", 0, 1e6)]
    return row


def read_for_long(database, stop, log_bytes):
    """Holds read transactions, as the sqlite3 shell does during a long query."""
    log = database.with_name(database.name + "-wal")
    while not stop.is_set():
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            for _ in range(40):
                log_bytes.append(log.stat().st_size if log.exists() else 0)
                if stop.wait(0.1):
                    break
            reader.execute("COMMIT")
