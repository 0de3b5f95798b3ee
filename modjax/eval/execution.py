"""Programs that a model has written, run in processes of their own that can do no harm.

Each program runs in a new Python process with an empty folder as its working directory and its home, which is deleted
afterwards, with an empty environment, and in the sandbox that `modjax.eval.sandbox` sets up before the first line of
the program. What holds, for root and for a plain user, also in containers:

    processes    none can be started, no program executed, and no signal sent to any process
    network      no socket can be opened
    memory       of the process, with all its threads: `Limits.memory`
    time         of the processor and of the clock: `Limits.seconds` and `Limits.wall`
    output       printed text, and each file: `Limits.output`
    files        only those in its folder can be changed; of others only Python's own, and the system's libraries, read

The last line needs Landlock (Linux 5.13). Without it no file can be changed, not even in the program's folder, but the
files that the user may read can be read; what is read can leave the process only by its output. `Outcome.isolation`
says which of both held. Where the kernel refuses the rest, nothing is run.

Not held: the number and the total size of the files in the folder; and names, sizes and times of files elsewhere can be
asked for, though not their content.

A program passes when all of it has run to its end, which its process proves by a random number. So a program that exits
early, prints "passed" or raises SystemExit does not pass; one that searched the memory of its own process for that
number would. As in every harness, an answer whose objects equal anything passes tests of equality.

Linux on x86-64 or 64-bit ARM; elsewhere nothing is run.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from modjax import arguments
from modjax.errors import InputError
from modjax.eval import sandbox

MIB = 2**20
START = 60.0  # seconds that Python may take to start on a busy machine
PASSED = "passed"  # the status of a program that has run to its end
TEXT = 4096  # characters of an outcome's text


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use."""

    seconds: int = 5  # of the processor
    wall: float = 10.0  # seconds of the clock
    memory: int = 1024 * MIB  # bytes of address space
    output: int = MIB  # bytes of printed text, and of each file that it writes

    def __post_init__(self):
        arguments.check_fields(self, ("seconds",), arguments.whole, least=1, most=86400)
        arguments.check_fields(self, ("wall",), arguments.number, above=0, most=86400)
        arguments.check_fields(self, ("memory",), arguments.whole, least=64 * MIB, most=2**62)
        arguments.check_fields(self, ("output",), arguments.whole, least=1, most=2**40)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
      status: "passed"; "failed", an error or an early exit; "time"; "output", more than it may print; or "killed", by a
        limit or a fault.
      text: the first TEXT characters of what it printed, with the error that ended it.
      isolation: what held it, as {"processes": ..., "network": ..., "files": ...}.
    """

    status: str
    text: str
    isolation: Mapping[str, str]

    @property
    def passed(self) -> bool:
        return self.status == PASSED


def check() -> None:
    """Raises InputError where programs cannot be held, and so are not run."""
    machine = f"{platform.system()} on {platform.machine()}"
    if platform.system() != "Linux" or platform.machine() not in sandbox.MACHINES:
        raise InputError(f"programs are run in a sandbox of Linux on {' or '.join(sandbox.MACHINES)}; found {machine}")


def run(programs: Sequence[str], limits: Limits = Limits(), workers: int | None = None) -> list[Outcome]:  # noqa: B008
    """Runs programs, several side by side, and tells how each ended.

    Args:
      programs: each with its tests at its end, as `assert` statements; it passes if its last line is reached.
      workers: processes at once; by default as many as there are processors.

    Raises InputError as `check`, and if the kernel refuses the sandbox: then no line of any program has run.
    """
    check()
    programs = arguments.texts("programs", programs)
    arguments.instance("limits", limits, Limits)
    workers = arguments.optional(arguments.whole)("workers", workers, least=1, most=1024)
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        return list(pool.map(lambda program: _run(program, limits), programs))


def _run(program: str, limits: Limits) -> Outcome:
    token = secrets.token_hex(16)
    job = json.dumps({"program": program, "token": token, **dataclasses.asdict(limits)}).encode()
    with tempfile.TemporaryDirectory(prefix="modjax-", ignore_cleanup_errors=True) as folder:
        verdict, theirs = os.pipe()
        with os.fdopen(verdict, "rb", buffering=0) as verdict:
            try:
                process = _process(folder, theirs)
            finally:
                os.close(theirs)
            with process:
                told, printed, over = _watched(process, verdict, job, limits)
    return _outcome(told.decode(errors="replace").split("\n"), printed, over, token, process.returncode)


def _process(folder: str, verdict: int) -> subprocess.Popen:
    """A Python process of its own session, in an empty folder, that waits for its job on standard input."""
    environment = {"HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}  # each reserves much memory
    return subprocess.Popen(
        [sys.executable, "-I", "-B", str(pathlib.Path(sandbox.__file__).resolve()), str(verdict)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment,
        pass_fds=(verdict,),
        start_new_session=True,
        bufsize=0,
    )


def _watched(process, verdict, job: bytes, limits: Limits) -> tuple[bytes, bytes, str]:
    """What the sandbox tells, what the program prints, and why it was ended: "time", "output" or "" if it was not."""
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(job)
    found, deadline = {verdict: b"", process.stdout: b""}, time.monotonic() + START
    with selectors.DefaultSelector() as selector:
        for pipe in found:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready or len(found[process.stdout]) > limits.output:
                process.kill()
                return found[verdict], found[process.stdout], "output" if ready else "time"
            for key, _ in ready:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is verdict and not found[verdict]:
                    deadline = time.monotonic() + limits.wall  # the program begins
                found[key.fileobj] += chunk[: 65536 if key.fileobj is process.stdout else 256]
    try:
        process.wait(max(deadline - time.monotonic(), 0))
    except subprocess.TimeoutExpired:  # the program has closed its pipes
        process.kill()
        return found[verdict], found[process.stdout], "time"
    return found[verdict], found[process.stdout], ""


def _outcome(told, printed, over, token, code) -> Outcome:
    if not told[0].startswith("{"):
        raise InputError(f"programs cannot be held here, so none was run ({told[0] or 'the sandbox did not start'})")
    isolation, text = json.loads(told[0]), printed.decode(errors="replace")[:TEXT]
    if over or code == -signal.SIGXCPU:
        return Outcome(over or "time", text, isolation)
    if token in told[1:]:
        return Outcome(PASSED, text, isolation)
    return Outcome("killed" if code < 0 else "failed", text, isolation)
