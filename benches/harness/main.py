"""The command line."""

import argparse
import json
import pathlib
import resource
import time

from harness import build, machine, profile, report
from harness.figures import compared, formatted, median, spread
from harness.rows import Options, rows
from harness.servers import Failure, Rig
from harness.targets import evaluate

# Processors that other processes may use during a measurement, with --patience.
MAX_DISTURBANCE = 0.3


def main(description):
    arguments = parse(description)
    gateways = dict(map(labelled, arguments.gateway)) or {"gateway": build.GATEWAY}
    options = Options(arguments.quick, gateways, arguments.seconds, arguments.ten_million)
    table = rows(options)
    if arguments.list:
        for row in table.values():
            print(f"{row.name:20} {row.title}")
        return 0
    unknown = [name for name in arguments.rows if name not in table]
    if unknown:
        raise SystemExit(f"scripts/bench: no such row: {', '.join(unknown)}")
    if arguments.profile:
        return profile.profile(arguments.profile, arguments.seconds or 20)
    if not arguments.no_build:
        build.build(gateway=not arguments.gateway and not arguments.build_only)
    if arguments.build_only:
        return 0
    Rig.parent = arguments.directory
    selected = [table[name] for name in arguments.rows] or list(table.values())
    measured = {"machine": machine.describe(), "rows": {}}
    start = time.monotonic()
    failed = []
    for row in selected:
        try:
            measured["rows"][row.name] = measure(row, arguments)
        except Failure as failure:
            print(f"  FAILED: {failure}", flush=True)
            failed.append(row.name)
        measured["minutes"] = round((time.monotonic() - start) / 60, 1)
        (build.TARGET / "results.json").write_text(json.dumps(measured, indent=1) + "\n")
    print_targets(measured["rows"], next(iter(gateways)))
    print(f"\n{measured['minutes']} minutes. {build.TARGET / 'results.json'} has all rounds.")
    if not arguments.rows and not arguments.quick:
        report.write(measured)
    elif arguments.update_page:
        report.update(measured, [row.title for row in table.values()])
    return 1 if failed else 0


def parse(description):
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW")
    parser.add_argument("--quick", action="store_true", help="one short round of most rows")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--rounds", type=int, help="number of rounds, instead of 5 or the row's own")
    parser.add_argument("--seconds", type=float, help="seconds of each load, where it is limited by time")
    parser.add_argument("--gateway", action="append", default=[], metavar="[LABEL=]PATH",
                        help="measure this build; may be repeated")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT",
                        help="only servers whose name contains this text; may be repeated")
    parser.add_argument("--directory", type=pathlib.Path, default=build.TARGET, metavar="DIR",
                        help="keep the data of the servers here; on a tmpfs, syncs are free and the disk adds no noise")
    parser.add_argument("--patience", type=float, default=0, metavar="SECONDS",
                        help="wait so long for other processes to become idle before each measurement, and repeat "
                             "a measurement during which they were busy")
    parser.add_argument("--update-page", action="store_true",
                        help="replace the results of the given rows in docs/performance.md")
    parser.add_argument("--ten-million", action="store_true", help="also 10,000,000 results in the row `stored`")
    parser.add_argument("--no-build", action="store_true", help="use the programs as they are")
    parser.add_argument("--build-only", action="store_true", help="build the other servers and the load generators")
    parser.add_argument("--profile", metavar="ROW", help="record a flame graph of the gateway while this row runs")
    return parser.parse_args()


def labelled(text):
    label, _, path = text.rpartition("=")
    path = pathlib.Path(path).resolve()
    if not path.is_file():
        raise SystemExit(f"scripts/bench: no such file: {path}")
    return label or "gateway", path


def measure(row, arguments):
    """Measures all servers of a row in alternating rounds."""
    number = arguments.rounds or (1 if arguments.quick else row.rounds or 5)
    cases = {name: case for name, case in row.cases.items()
             if not arguments.only or any(text in name for text in arguments.only)}
    print(f"\n{row.title} ({row.name}, {number} {'round' if number == 1 else 'rounds'})", flush=True)
    rounds = {name: [] for name in cases}
    start = time.monotonic()
    with row.stack:
        for index in range(number):
            # Every other round runs backwards, so that none always follows the same one.
            names = list(cases) if index % 2 == 0 else list(reversed(cases))
            for name in names:
                rounds[name].append(measure_undisturbed(cases[name], arguments.patience))
    measured = {"title": row.title, "note": row.note, "plot": row.plot,
                "columns": [vars(column) for column in row.columns],
                "seconds": round(time.monotonic() - start, 1),
                "cases": {name: {"median": median(results), "rounds": results} for name, results in rounds.items()}}
    print_row(measured)
    return measured


def measure_undisturbed(case, patience):
    """Measures a server while no other process needs much of the machine, if that happens in time."""
    results = []
    deadline = time.monotonic() + patience
    while True:
        while time.monotonic() < deadline and machine.used_processors() > MAX_DISTURBANCE:
            time.sleep(2)
        results.append(measure_case(case))
        if results[-1]["other_processes"] <= MAX_DISTURBANCE or time.monotonic() >= deadline:
            return min(results, key=lambda result: result["other_processes"])


def measure_case(case):
    """Measures a server once. Adds how busy other processes of the machine were, in processors."""
    before = machine.busy_seconds(), own_seconds(), time.monotonic()
    result = case()
    busy, own = machine.busy_seconds() - before[0], own_seconds() - before[1]
    result["other_processes"] = round(max(0.0, busy - own) / (time.monotonic() - before[2]), 2)
    return result


def own_seconds():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def print_row(measured):
    titles = [column["title"] for column in measured["columns"]]
    lines = [["", *titles, "× the first", "spread", "other processes"]]
    key, first = measured["columns"][0]["key"], next(iter(measured["cases"].values()))
    for name, case in measured["cases"].items():
        cells = [formatted(case["median"], column) for column in measured["columns"]]
        lines.append([name, *cells, compared(case["rounds"], first["rounds"], key), spread(case["rounds"], key),
                      f"{case['median']['other_processes']:.2f}"])
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    for line in lines:
        cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        print("  " + "  ".join([line[0].ljust(widths[0]), *cells]), flush=True)


def print_targets(measured, gateway):
    targets = evaluate(measured, gateway)
    if targets:
        print("\nTargets")
    for target in targets:
        print(f"  {'met   ' if target.met else 'MISSED'}  {target.row}: {target.text}: {target.measured}")
