"""Real processes on this machine that run commands together, or one that runs them alone."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
WORKER = """
import json, sys
from modjax.cli import main
*flags, commands = sys.argv[1:]
for command in json.loads(commands):
    sys.argv = ["modjax", *command, *flags]
    main.main()
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def started(n: int, commands: Sequence[Sequence[str]], folder: pathlib.Path, devices: int = 1, before: str = ""):
    """n processes in a folder that run commands of modjax one after another, each with some CPU devices.

    before: Python that each runs first.
    """
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        coordinator = f"--coordinator=localhost:{probe.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
    }
    flags = [[coordinator, f"--processes={n}", f"--process={i}"] if n > 1 else [] for i in range(n)]
    return [
        subprocess.Popen(
            [sys.executable, "-c", before + WORKER, *own, json.dumps(commands)],
            env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for own in flags
    ]  # fmt: skip


def ended(processes: Sequence[subprocess.Popen], seconds: float = 500) -> list[Ended]:
    """What each process printed until its end."""
    try:
        found = []
        for process in processes:
            out, err = process.communicate(timeout=seconds)
            found.append(Ended(process.returncode, out, err))
        return found
    finally:
        for process in processes:
            process.kill()
            process.communicate()
