"""Timing in turn, memory, the machine, and one JSON object per benchmark: what all scripts here share.

JAX is imported where it is used: some scripts measure the memory of processes without it.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

STATUS = pathlib.Path("/proc/self/status")
# BENCHMARK_CLOCK=cpu times the CPU seconds of this process: on a busy machine, with one core, they change less.
CLOCK = os.environ.get("BENCHMARK_CLOCK", "wall")


def parser(doc: str, repeats: int | None = 3) -> argparse.ArgumentParser:
    """A parser with the flags of every benchmark; `doc` is the docstring of the script. repeats: None, no such flag."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, help="timed runs of each side")
    made.add_argument("--small", action="store_true", help="a tiny random model and small sizes: seconds, no claim")
    made.add_argument("--out", type=pathlib.Path, help="JSON file for the result, which is also printed")
    return made


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and what it returns. The call must wait for its own results."""
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[CLOCK]
    start = clock()
    returned = run()
    return clock() - start, returned


def in_turn(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """{side: seconds of each of its runs}. The sides alternate, so that a slower hour of the machine hits all alike.

    Run every side once before: first runs compile.
    """
    seconds = {side: [] for side in runs}
    for _ in range(repeats):
        for side, run in runs.items():
            seconds[side].append(timed(run)[0])
    return seconds


def rates(seconds: Mapping[str, list[float]], amount: float) -> dict[str, dict]:
    """{side: its median of `amount` per second, and that of every run}."""
    found = {side: [amount / one for one in own] for side, own in seconds.items()}
    return {side: {"per_second": statistics.median(own), "runs": own} for side, own in found.items()}


def ratio(seconds: Mapping[str, list[float]], side: str, over: str) -> float:
    """How many times shorter than those of `over` the runs of `side` are, by medians."""
    return statistics.median(seconds[over]) / statistics.median(seconds[side])


def peak_memory(build: Callable[[], Callable[[], Any]]) -> float | None:
    """Peak resident memory of a warm run beyond that before the model was loaded, in MiB; None if not on Linux.

    Call it in a separate process: memory that another side has used is not all returned to the system.
    """
    if not STATUS.exists():
        return None
    before = resident("VmRSS")
    run = build()
    run()
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # resets the peak, to leave out loading and compiling
    run()
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """Resident memory of this process in MiB: "VmRSS" now, "VmHWM" at its peak."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def of_child(*flags: str) -> Any:
    """The JSON that this command prints with these flags added, in a process of its own."""
    command = [sys.executable, *sys.argv, *flags]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def matmul_peak(dtype: Any, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of the fastest of several products of square matrices of this size and half of it: the practical peak."""
    return max(_matmul_rate(dtype, width, repeats) for width in (size // 2, size))


def _matmul_rate(dtype, size, repeats):
    import jax

    x, y = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    product = jax.jit(lambda x, y: x @ y)
    product(x, y).block_until_ready()
    return 2 * size**3 / min(timed(lambda: product(x, y).block_until_ready())[0] for _ in range(repeats))


def copy_peak(size: int, repeats: int = 5) -> float:
    """Bytes per second, read and written, of the fastest of several passes over `size` float32 numbers."""
    import jax

    x = jax.numpy.zeros(size, jax.numpy.float32)
    copied = jax.jit(lambda x: x + 1)
    copied(x).block_until_ready()
    return 8 * size / min(timed(lambda: copied(x).block_until_ready())[0] for _ in range(repeats))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def machine(*packages: str) -> dict:
    """The machine and the versions of these packages."""
    import jax

    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(": ")[1] for line in lines if line.startswith("model name")]
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": names[0] if names else platform.processor(),
        "cpu_count": cores(),
        "clock": CLOCK,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "modjax", *packages)},
    }


def report(figures: dict, packages: tuple[str, ...], out: pathlib.Path | None) -> None:
    """Prints the figures with their command and machine as one JSON object, and writes it to `out` if given."""
    command = " ".join(["python", *(one for one in sys.argv if not one.startswith("--out="))])
    whole = {"benchmark": pathlib.Path(sys.argv[0]).stem, "command": command} | machine(*packages) | figures
    text = json.dumps(whole, indent=2)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
