"""Writes the results into docs/performance.md."""

import html
import re
import statistics

from harness import plots
from harness.build import ROOT
from harness.figures import formatted, value
from harness.targets import evaluate

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images" / "performance"
BEGIN, END = "<!-- Written by scripts/bench: begin -->", "<!-- Written by scripts/bench: end -->"


def write(measured):
    """Replaces the part of the page between the marks, and the plots."""
    parts = [machine(measured), targets(measured)]
    parts += [section(name, row) for name, row in measured["rows"].items()]
    replace(lambda _: parts)


def update(measured, titles):
    """Replaces the sections of the measured rows, their targets and their plots. `titles` has the order of all rows."""
    def updated(generated):
        first, *sections = re.split("^### ", generated.strip(), flags=re.MULTILINE)
        sections = {text.splitlines()[0]: f"### {text.strip()}" for text in sections}
        old = [line for line in sections.pop("Targets").splitlines()[4:]
               if line.split("|")[1].strip() not in measured["rows"]]
        for name, row in measured["rows"].items():
            notes = [row["note"], separate(row, measured["machine"]["revision"])]
            sections[row["title"]] = section(name, row | {"note": "\n\n".join(filter(None, notes))})
        ordered = sorted(sections, key=lambda title: titles.index(title) if title in titles else len(titles))
        return [first.strip(), targets(measured, old), *map(sections.get, ordered)]

    replace(updated)


def separate(row, revision):
    """Describes the measurement of a row that was not measured together with all others."""
    others = [result["other_processes"] for case in row["cases"].values() for result in case["rounds"]]
    return (f"Measured separately from the other rows, at revision {revision}.\n"
            f"Other processes used {min(others):.1f} to {max(others):.1f} processors, {statistics.median(others):.1f} in the median.")


def replace(parts):
    """Replaces the part of the page between the marks by the parts that a function makes of it."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    before, rest = PAGE.read_text().split(BEGIN)
    generated, after = rest.split(END)
    PAGE.write_text(before + BEGIN + "\n\n" + "\n\n".join(parts(generated)) + "\n\n" + END + after)
    print(f"Wrote {PAGE}")


def machine(measured):
    described = measured["machine"]
    return (f"Measured in {measured['minutes']:.0f} minutes on a virtual machine with {described['processors']} "
            f"processors ({described['processor']}),\n{described['memory_gib']} GiB of memory, Linux "
            f"{described['kernel']}, {described['file_system']}; {described['rust']}, {described['go']};\n"
            f"revision {described['revision']}.")


def targets(measured, others=()):
    """Returns the table of targets, with the lines of rows that were measured before."""
    lines = ["### Targets", "", "| row | target | measured | met |", "| --- | --- | --- | --- |", *others]
    for target in evaluate(measured["rows"]):
        lines.append(f"| {target.row} | {target.text} | {target.measured} | {'yes' if target.met else '**no**'} |")
    return "\n".join(lines)


def section(name, row):
    lines = [f"### {row['title']}", ""]
    if row["note"]:
        lines += [row["note"], ""]
    lines += table(row)
    if plot := plotted(row):
        path = IMAGES / f"{name}.svg"
        path.write_text(plot)
        lines += ["", f"![{html.escape(row['title'])}](images/performance/{name}.svg)"]
    return "\n".join(lines)


def table(row):
    columns = [column for column in row["columns"]
               if any(value(case["median"], column["key"]) is not None for case in row["cases"].values())]
    lines = ["| | " + " | ".join(column["title"] for column in columns) + " |",
             "| --- |" + " ---: |" * len(columns)]
    for name, case in row["cases"].items():
        cells = [formatted(case["median"], column) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def plotted(row):
    """Plots the first column: lines if the names of the servers end with a number of something, else bars."""
    if not row["plot"]:
        return None
    column = row["columns"][0]
    measured = {name: numbers for name, case in row["cases"].items() if (numbers := of_column(case, column))}
    series, unit = {}, ""
    for name, numbers in measured.items():
        if match := re.fullmatch(r"(.*), ([\d,]+) (\w+)", name):
            unit = match[3]
            point = int(match[2].replace(",", "")), statistics.median(numbers)
            series.setdefault(match[1], []).append(point)
    if series:
        return plots.lines(row["title"], unit, column["title"], series)
    values = [(name, statistics.median(numbers), min(numbers), max(numbers)) for name, numbers in measured.items()]
    return plots.bars(row["title"], column["title"], values)


def of_column(case, column):
    numbers = [value(result, column["key"]) for result in case["rounds"]]
    return [number / column["divisor"] for number in numbers if number is not None]
