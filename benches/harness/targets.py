"""The targets of the gateway."""

import statistics
from dataclasses import dataclass

from harness.figures import value

GO, FLOOR_A, FLOOR_B = "Go service", "floor (a)", "floor (b)"


@dataclass
class Target:
    row: str
    text: str
    measured: str
    met: bool


class Targets:
    """Compares the medians of the rows that were measured."""

    def __init__(self, rows, gateway):
        self.rows = rows
        self.gateway = gateway
        self.found = []

    def number(self, row, case, key):
        """The median of the first server whose name starts with `case`."""
        cases = self.rows.get(row, {"cases": {}})["cases"]
        matching = [measured for name, measured in cases.items() if name.startswith(case)]
        return value(matching[0]["median"], key) if matching else None

    def add(self, row, text, number, met, decimals=2, unit=""):
        if number is not None:
            self.found.append(Target(row, text, f"{number:,.{decimals}f}{unit}", met(number)))

    def ratio(self, row, key, case, at_least=None, at_most=None, gateway=None, case_name=None):
        """Compares the gateway with another server of the row."""
        ours, theirs = self.number(row, gateway or self.gateway, key), self.number(row, case, key)
        if not ours or not theirs:
            return
        name = case_name or {"Go": "the Go service"}.get(case[:2], case)
        if at_least is not None:
            self.add(row, f"at least {at_least} × {name}", ours / theirs, lambda ratio: ratio >= at_least, unit=" ×")
        else:
            self.add(row, f"at most {at_most} × {name}", ours / theirs, lambda ratio: ratio <= at_most, unit=" ×")

    def limit(self, row, key, text, at_most, case=None, decimals=2, divisor=1, unit=""):
        number = self.number(row, case or self.gateway, key)
        if number is not None:
            self.add(row, f"{text}: at most {at_most}{unit}", number / divisor, lambda number: number <= at_most,
                     decimals, unit)


def evaluate(rows, gateway="gateway"):
    """Returns the targets of the rows that were measured, for one of the gateways."""
    targets = Targets(rows, gateway)
    for row, go, floor_b in (("callbacks-256", 2, 0.55), ("callbacks-16", 1.5, 0.5)):
        targets.ratio(row, "per_second", GO, at_least=go)
        targets.ratio(row, "per_second", FLOOR_B, at_least=floor_b)
    targets.ratio("callbacks-256", "per_second", FLOOR_A, at_least=0.35)
    targets.ratio("paced", "cpu_us", GO, at_most=1, case_name="the processor time of the Go service")
    targets.limit("paced", "latency_ms.p99", "p99 of the response", 5, unit=" ms")
    targets.limit("paced", "watch_ms.p50", "p50 to the watcher", 1, unit=" ms")
    targets.limit("paced", "watch_ms.p99", "p99 to the watcher", 6, unit=" ms")
    targets.ratio("change-64", "per_second", FLOOR_B, at_least=0.6)
    change_latency(targets)
    targets.ratio("change-10000", "cpu_ms", "floor", at_most=3, case_name="the processor time of the floor")
    targets.limit("change-10000", "bytes_per_device", "bytes written for a device", 150, decimals=0)
    targets.ratio("replay", "per_second", FLOOR_B, at_least=0.5)
    fan_out(targets)
    targets.ratio("idle-many", "bytes_per_watch", "floor", at_most=1.25, case_name="the memory of bare streams")
    stored(targets)
    targets.ratio("postgres-callbacks-256", "per_second", "floor", at_least=0.5, case_name="the floor")
    targets.limit("postgres-stored", "start_seconds", "start with 1,000,000 results", 2,
                  f"{gateway}, 1,000,000 results", unit=" s")
    for row in ("quarantine", "attribution", "unknown-change", "foreign-reader"):
        case = f"{gateway}, under pressure"
        targets.limit(row, "refused", "good callbacks refused", 0, case, decimals=0)
        targets.limit(row, "latency_ms.p99", "p99 of the response", 200, case, decimals=0, unit=" ms")
    return targets.found


def change_latency(targets):
    ours = targets.number("change-1", targets.gateway, "latency_ms.p50")
    floor = targets.number("change-1", FLOOR_B, "latency_ms.p50")
    sync = targets.number("change-1", "write and fdatasync", "latency_ms.p50")
    if None not in (ours, floor, sync):
        most = 4 * sync + 0.3
        targets.add("change-1", f"p50 above floor (b): at most 4 × fdatasync + 0.3 ms ({most:.2f} ms)", ours - floor,
                    lambda added: added <= most, unit=" ms")


def fan_out(targets):
    rate, floor = (targets.number("fanout", case, "per_second") for case in (targets.gateway, "floor"))
    if None in (rate, floor):
        return
    least, reason = 0.6 * floor, "0.6 × the floor"
    ingest = targets.number("callbacks-256", targets.gateway, "per_second")
    if ingest and 200 * ingest < least:
        least, reason = 200 * ingest, "200 × the callbacks a second"
    targets.add("fanout", f"at least {reason} ({least / 1e6:.2f} M/s)", rate / 1e6, lambda rate: rate * 1e6 >= least,
                unit=" M/s")
    rounds = [result["per_second"] for result in targets.rows["fanout"]["cases"][targets.gateway]["rounds"]]
    if len(rounds) > 1:
        targets.add("fanout", "the worst round: at least 0.7 × the median", min(rounds) / statistics.median(rounds),
                    lambda ratio: ratio >= 0.7, unit=" ×")


def stored(targets):
    few, many = f"{targets.gateway}, 10,000 results", f"{targets.gateway}, 1,000,000 results"
    for key, figure, bounds in (
        ("per_second", "callbacks a second", {"at_least": 0.9}),
        ("open.opened_ms.p50", "time to open a watch", {"at_most": 1.2}),
        ("memory_bytes", "memory", {"at_most": 1.2}),
    ):
        name = f"the {figure} with 10,000 results"
        targets.ratio("stored", key, few, gateway=many, case_name=name, **bounds)
    targets.limit("stored", "start_seconds", "start with 1,000,000 results", 1, many, unit=" s")
