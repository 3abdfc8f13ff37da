"""The machine that the benchmark runs on."""

import os
import pathlib
import platform
import subprocess
import time

from harness.build import ROOT
from harness.servers import TICKS


def describe():
    return {
        "processor": processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": platform.release(),
        "file_system": output("findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(ROOT)),
        "load_average": os.getloadavg()[0],
        "rust": output("rustc", "--version"),
        "go": output("go", "version").removeprefix("go version "),
        "revision": output("git", "describe", "--always", "--dirty"),
    }


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def output(*command):
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def busy_seconds():
    """The time for which all processors were busy."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system, _idle, _iowait, interrupts, soft_interrupts, *_ = map(int, fields)
    return (user + nice + system + interrupts + soft_interrupts) / TICKS


def used_processors():
    """The number of processors that are busy."""
    before = busy_seconds()
    time.sleep(1)
    return busy_seconds() - before
