"""Programs in the sandbox: each kind of harm is prevented, and none of the ways to end early passes."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import time

import pytest

from modjax.errors import InputError
from modjax.eval import execution, sandbox
from modjax.eval.execution import Limits, run

LIMITS = Limits(seconds=1, wall=60.0, memory=512 * execution.MIB, output=10_000)
TESTS = "\nassert add(1, 2) == 3\nassert add(-1, 1) == 0\n"
RIGHT = "def add(a, b):\n    return a + b\n"

NOT_PASSED = {
    "wrong": ("def add(a, b):\n    return a - b\n", "failed"),
    "exit": ("exit(0)\n", "failed"),
    "sys.exit in a function": ("import sys\ndef add(a, b):\n    sys.exit(0)\n", "failed"),
    "os._exit": ("import os\nos._exit(0)\n", "failed"),
    "prints passed": ("print('passed')\nraise SystemExit(0)\n", "failed"),
    "not Python": ("def add(a, b:\n", "failed"),
    "says so on every pipe": (
        "import os\nfor pipe in range(3, 64):\n    try:\n        os.write(pipe, b'\\npassed\\n')\n"
        "    except OSError:\n        pass\nos._exit(0)\n",
        "failed",
    ),
    "exits at its end": ("import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit\n", "failed"),
    "abort": ("import os\nos.abort()\n", "killed"),
    "processor": ("while True:\n    pass\n", "time"),
    "sleep": ("import time\ntime.sleep(1000)\n", "time"),
    "sleep without output": ("import os, time\nos.close(1)\nos.close(2)\ntime.sleep(1000)\n", "time"),
    "sleep without any pipe": ("import os, time\nos.closerange(0, 64)\ntime.sleep(1000)\n", "time"),
    "memory": ("x = bytearray(2**30)\n", "failed"),
    "threads": ("import threading as t, time\nwhile 1:\n    t.Thread(target=time.sleep, args=[9]).start()\n", "time"),
    "output": ("while True:\n    print('x' * 100)\n", "output"),
    "large file": ("with open('x', 'wb') as file:\n    file.write(bytes(10**6))\n", "failed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes():
    """How the programs end, run side by side."""
    found = {}
    for wall in (1.0, 60.0):  # a machine with much to do may take long for the others
        programs = {name: text + TESTS for name, (text, end) in NOT_PASSED.items() if (end == "time") == (wall == 1.0)}
        limits = dataclasses.replace(LIMITS, wall=wall)
        found |= dict(zip(programs, run(list(programs.values()), limits, workers=8), strict=True))
    return found


@pytest.mark.parametrize("name", NOT_PASSED)
def test_what_does_not_pass(outcomes, name):
    assert outcomes[name].status == NOT_PASSED[name][1], outcomes[name].text


def test_right_programs_pass_and_may_use_files_and_threads():
    program = (
        "import os, threading, asyncio\n" + RIGHT + "assert os.listdir('.') == []\n"
        "assert os.environ['HOME'] == os.getcwd() == os.environ['TMPDIR']\n"
        "with open('x', 'w') as file:\n    file.write('y')\nassert open('x').read() == 'y'\nos.remove('x')\n"
        "thread = threading.Thread(target=print, args=['said'])\nthread.start()\nthread.join()\n"
        "async def one():\n    return 1\nassert asyncio.run(one()) == 1\n" + TESTS
    )
    found = run([program, RIGHT + TESTS], LIMITS)
    assert [one.status for one in found] == ["passed", "passed"], found[0].text
    assert found[0].text == "said\n" and found[0].passed
    assert set(found[0].isolation) == {"processes", "network", "files"}


def test_the_environment_is_empty_and_the_folder_goes(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    (one,) = run(
        ["import os\nprint(os.getcwd())\nassert 'SECRET' not in os.environ\nopen('left', 'w').close()\n"], LIMITS
    )
    folder = pathlib.Path(one.text.strip())
    assert one.passed and folder.parent.is_dir() and not folder.exists()


FORBIDDEN = {
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "a command": "import subprocess\nsubprocess.run(['true'])",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "another program in its place": "import os, sys\nos.execv(sys.executable, ['python'])",
    "the network": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "a signal to all": "import os\nos.kill(-1, 9)",
    "a signal to modjax": "import os\nos.kill(os.getppid(), 9)",
    "a signal to modjax by a pipe": "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())",
    "limits of modjax": "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
    "limits of its own": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "shared memory": "import os\nos.memfd_create('x')",
    "deleting a file": "import os\nos.remove({file!r})",
    "emptying a file": "open({file!r}, 'w')",
    "renaming a file": "import os\nos.rename({file!r}, 'x')",
    "rights of a file": "import os\nos.chmod({file!r}, 0)",
    "deleting a folder": "import shutil\nshutil.rmtree({folder!r})",
    "a new file elsewhere": "open({folder!r} + '/new', 'w')",
    "reading a file": "open({file!r}).read()",
    "reading the home folder": "import os\nos.listdir({home!r})",
    "reading this process": "import os\nopen(f'/proc/{{os.getppid()}}/environ', 'rb').read()",
}


@pytest.mark.parametrize("landlock", [True, False])
def test_what_is_forbidden_fails_and_harms_nothing(tmp_path, landlock, monkeypatch):
    """Without Landlock, too, except that files can be read; a program may go on after each failure."""
    if not landlock:
        _without_landlock(monkeypatch, tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("content")
    places = {"file": str(kept / "file"), "folder": str(kept), "home": os.path.expanduser("~")}
    names = [name for name in FORBIDDEN if landlock or not name.startswith("reading")]
    programs = [
        "try:\n" + "".join(f"    {line}\n" for line in FORBIDDEN[name].format(**places).split("\n"))
        + "except (OSError, ValueError):\n    pass\nelse:\n    raise SystemExit('it did')\n"
        for name in names
    ]  # fmt: skip
    found = dict(zip(names, run(programs, LIMITS, workers=8), strict=True))
    assert {name: one.text for name, one in found.items() if not one.passed} == {}
    assert ("Landlock)" in found[names[0]].isolation["files"]) and landlock == (
        "own folder" in found[names[0]].isolation["files"]
    )
    assert (kept / "file").read_text() == "content" and [one.name for one in kept.iterdir()] == ["file"]


def _without_landlock(monkeypatch, folder):
    """Starts the sandbox as on a kernel without Landlock."""
    script = folder / "sandbox.py"
    text = pathlib.Path(sandbox.__file__).read_text()
    assert text.count("landlocked = restrict_files()") == 1
    script.write_text(text.replace("landlocked = restrict_files()", "landlocked = False"))
    monkeypatch.setattr(sandbox, "__file__", str(script))


@pytest.mark.skipif(os.getuid() != 0, reason="other tests run as a plain user then")
def test_a_plain_user_is_held_too(tmp_path):
    """With the system's Python, which every user may start; as root the other tests show what holds root."""
    python = "/usr/bin/python3"
    if not os.path.exists(python):
        pytest.skip(f"there is no {python}")
    for program, passes in (("x = 1", True), ("import os\nos.fork()", False), ("open('/etc/passwd')", False)):
        code = pathlib.Path(sandbox.__file__).read_text()
        job = f'{{"program": {program!r}, "token": "t", "memory": {2**29}, "output": 1000, "seconds": 2}}'.replace(
            "'", '"'
        )
        read, write = os.pipe()
        command = [python, "-I", "-B", "-c", code, str(write)]
        subprocess.run(
            command, input=job, text=True, capture_output=True, pass_fds=[write], cwd="/", user=65534, check=False
        )
        os.close(write)
        with os.fdopen(read) as told:
            assert (told.read().split("\n")[1:2] == ["t"]) == passes, program


def test_a_program_ends_with_the_process_that_runs_it():
    code = "from modjax.eval.execution import *; run(['import time\\ntime.sleep(1000)'], Limits(wall=1000))"
    runner = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 120
        while not (found := _children(runner.pid)) and time.monotonic() < until:
            time.sleep(0.1)
        time.sleep(0.5)  # until the program sleeps
    finally:
        runner.kill()
        runner.wait()
    while any(map(_alive, found)) and time.monotonic() < until:
        time.sleep(0.1)
    assert found and not any(map(_alive, found))


def _children(pid):
    return [child for child in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _state(child)[1] == str(pid)]


def _alive(pid):
    return _state(pid)[0] not in ("", "Z")


def _state(pid):
    """The state of a process and its parent; nothing if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return ["", ""]


def test_programs_run_side_by_side():
    start = time.perf_counter()
    run(["import time\ntime.sleep(1)"] * 6, LIMITS, workers=6)
    assert time.perf_counter() - start < 6


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(execution.platform, "system", lambda: "Darwin")
    with pytest.raises(InputError, match="sandbox of Linux on x86_64 or aarch64; found Darwin"):
        run([RIGHT])


def test_a_kernel_that_refuses_runs_nothing(monkeypatch, tmp_path):
    script = tmp_path / "sandbox.py"
    text = pathlib.Path(sandbox.__file__).read_text()
    script.write_text(text.replace("libc.prctl(22, 2,", "libc.prctl(22, 9,"))
    monkeypatch.setattr(sandbox, "__file__", str(script))
    with pytest.raises(InputError, match=r"cannot be held here, so none was run \(seccomp: Invalid argument\)"):
        run(["open('ran', 'w')"])


def test_a_python_that_does_not_start_is_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(InputError, match="the sandbox did not start"):
        run([RIGHT])
