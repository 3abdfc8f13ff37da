"""Records where the gateway spends its time while a row runs."""

import contextlib
import shutil
import signal
import subprocess
from collections import Counter

from harness import build
from harness.build import TARGET
from harness.rows import Options, rows
from harness.servers import Rig

PROFILED = TARGET / "profiled"


def profile(name, seconds):
    """Writes target/bench/profiles/NAME.folded and NAME.svg."""
    if not shutil.which("perf"):
        raise SystemExit("scripts/bench: please install perf (Debian: linux-perf)")
    build.build(gateway=False)
    # Frame pointers, so that perf finds the callers.
    build.run("cargo", "build", "--locked", "--release", "--bin", "thingspace-gateway",
              CARGO_TARGET_DIR=str(PROFILED), RUSTFLAGS="-Cforce-frame-pointers=yes",
              CFLAGS="-fno-omit-frame-pointer")
    inferno = install_inferno()
    gateway = PROFILED / "release" / "thingspace-gateway"
    row = rows(Options(False, {"gateway": gateway}, seconds))[name]
    directory = TARGET / "profiles"
    directory.mkdir(exist_ok=True)
    data = directory / f"{name}.data"
    Rig.profiler = staticmethod(lambda pid: record(pid, data))
    # The last case of the gateway: with pressure, or with the most results.
    case = [case for case in row.cases if case.startswith("gateway")][-1]
    with row.stack:
        print(f"{row.title}: {case}: {row.cases[case]()}")
    write_flame_graph(inferno, row, data, directory / name)
    print(f"Wrote {directory / name}.svg and {directory / name}.folded")
    return 0


def install_inferno():
    tools = TARGET / "tools"
    if not (tools / "bin" / "inferno-flamegraph").exists():
        build.run("cargo", "install", "--quiet", "--locked", "--root", tools, "inferno@0.12.8")
    return tools / "bin"


@contextlib.contextmanager
def record(pid, data):
    """Records the process while the load runs."""
    data.unlink(missing_ok=True)
    command = ["perf", "record", "--quiet", "--freq", "499", "-g", "--output", str(data), "--pid", str(pid)]
    perf = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        perf.send_signal(signal.SIGINT)
        perf.wait()


def write_flame_graph(inferno, row, data, path):
    script = data.with_suffix(".script")
    with open(script, "w") as file:
        subprocess.run(["perf", "script", "--input", data], stdout=file, stderr=subprocess.DEVNULL, check=True)
    folded = path.with_suffix(".folded")
    with open(folded, "w") as file:
        subprocess.run([inferno / "inferno-collapse-perf", script], stdout=file, check=True)
    with open(path.with_suffix(".svg"), "w") as file:
        subprocess.run([inferno / "inferno-flamegraph", "--title", row.title, "--minwidth", "0.5", folded],
                       stdout=file, check=True)
    script.unlink()
    print_hottest(folded)


def print_hottest(folded, count=30):
    """Prints the functions that the processor spent most time in, alone and with what they call."""
    alone, with_calls, total = Counter(), Counter(), 0
    for line in folded.read_text().splitlines():
        stack, samples = line.rsplit(" ", 1)
        functions = stack.split(";")
        alone[functions[-1]] += int(samples)
        for function in set(functions):
            with_calls[function] += int(samples)
        total += int(samples)
    for title, counter in (("Alone", alone), ("With calls", with_calls)):
        print(title)
        for function, samples in counter.most_common(count):
            print(f"{samples / total:7.1%}  {function[:110]}")
