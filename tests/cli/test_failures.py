"""What docs/failures.md says of runs that cannot go on: the message, the exit code, and that nothing is lost."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from many import ROOT, ended, started

from modjax import lock
from modjax.cli import ending
from modjax.experts.library import Library
from modjax.lock import locked


def test_a_second_run_in_a_workdir_is_refused_and_changes_nothing(modjax, config_file, tmp_path, monkeypatch):
    folder = tmp_path / "job"
    (folder / "checkpoints").mkdir(parents=True)
    with locked(folder):
        monkeypatch.setattr(lock, "_own_name", lambda: "another process")
        code, _, err = modjax("train", f"--config={config_file}", f"--workdir={folder}")
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "checkpoints"]
    assert code == 75
    assert f"{folder}: process {os.getpid()} on " in err and " works in this folder; wait for its end" in err


def test_a_verb_leaves_no_lock(modjax, config_file, library, tmp_path):
    code, _, err = modjax(
        "merge", f"--config={config_file}", f"--config.library={library}", f"--workdir={tmp_path / 'merged'}",
        "--config.method.merge.name=uniform",
    )  # fmt: skip
    assert code == 0, err
    assert sorted(path.name for path in (tmp_path / "merged").iterdir()) == ["config.json", "content.json", "library"]


TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Failed writing: "/job/checkpoints/2/d/47": Failed to write 9 bytes to file 17: '
    "No space left on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "/job/a"), "/job/a: Read-only file system"),
        (ValueError(TENSORSTORE), "/job/checkpoints/2/d/47: No space left on device"),
    ],
)
def test_an_error_of_the_file_system_is_one_line(error, text, capsys):
    assert ending.show(error) == 74
    assert capsys.readouterr().err == f"modjax: {text}; when that is mended, the same command goes on\n"


def test_a_bug_keeps_its_traceback(capsys):
    for error in (ValueError("odd"), ConnectionError("no reply")):
        assert ending.show(error) == 1
        assert f"{type(error).__name__}: {error}" in capsys.readouterr().err


def test_a_missing_file_of_tasks_is_named_before_anything_is_trained(modjax, config_file, tmp_path):
    index = [{"task": name, "file": f"{name}.jsonl"} for name in ("here", "lost")]
    (tmp_path / "index.json").write_text(json.dumps(index))
    (tmp_path / "here.jsonl").write_text('{"id": "1", "split": "train", "input": "red", "outputs": ["yes"]}\n')
    tasks = f"--config.tasks={tmp_path}"
    code, _, err = modjax("train", f"--config={config_file}", tasks, f"--workdir={tmp_path / 'job'}")
    assert code == 2 and "lost.jsonl: cannot be read (No such file or directory)" in err
    assert not (tmp_path / "job" / "checkpoints").exists()


def run(*words, **given):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500, **given)


# In a namespace of their own, where mounts need no rights: a disk of 300 KiB that fills up and is made larger, and a
# folder that is made read-only and writable again.
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
FULL_DISK = """
mount -t tmpfs -o size=300k tmpfs "$DISK" || exit 99
"$@" && exit 98
echo "code $?" >&2
ls "$DISK/job/checkpoints" >&2
mount -o remount,size=64m "$DISK" && "$@" && cp -r "$DISK/job/library" "$RESULT"
"""
READ_ONLY = """
mount --bind "$DISK" "$DISK" && mount -o remount,ro,bind "$DISK" || exit 99
"$@" && exit 98
echo "code $?" >&2
mount -o remount,rw,bind "$DISK" && "$@" && cp -r "$DISK/job/library" "$RESULT"
"""
CAN_MOUNT = shutil.which("unshare") and run(*NAMESPACE, "mount -t tmpfs tmpfs /mnt").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not CAN_MOUNT, reason="needs a namespace in which file systems may be mounted")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (FULL_DISK, ["No space left on device; when that is mended, the same command goes on", "code 74"]),
        (READ_ONLY, ["job: cannot be written (Read-only file system)", "code 2"]),
    ],
)
def test_a_disk_that_is_full_or_read_only(script, words, config_file, tmp_path, monkeypatch):
    disk, result = tmp_path / "disk", tmp_path / "result"
    disk.mkdir()
    monkeypatch.setenv("DISK", str(disk))
    monkeypatch.setenv("RESULT", str(result))
    command = [sys.executable, "-m", "modjax", "train", f"--config={config_file}", "--config.train.steps=200"]
    done = run(*NAMESPACE, script, "sh", *command, f"--workdir={disk / 'job'}")
    assert done.returncode == 0, done.stderr[-4000:]
    assert [one for one in words if one not in done.stderr] == []
    assert "Traceback" not in done.stderr
    alone = run(*command, f"--workdir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr[-4000:]
    assert _bytes(result) == _bytes(tmp_path / "alone" / "library")


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


HEARTBEAT = "from modjax.parallel import distributed\ndistributed.HEARTBEAT = 15\n"
SLOW = """
import sys, time
from modjax import data
load = data.load
if "--process=1" in sys.argv:
    data.load = lambda *given, **named: (time.sleep(40), load(*given, **named))[1]
"""


@pytest.mark.slow
def test_processes_that_do_not_meet_are_told_so(config_file, tmp_path):
    soon = "from modjax.parallel import distributed\ndistributed.MEETING = 5\n"
    first, second = started(2, [["train", f"--config={config_file}", "--workdir=job"]], tmp_path, before=soon)
    first.kill()
    _, found = ended([first, second], seconds=100)
    assert found.code == -signal.SIGABRT and "DEADLINE_EXCEEDED" in found.err


LOST_FILE = """
import sys
from modjax import data
load = data.load
if "--process=1" in sys.argv:
    data.load = lambda *given, **named: load("lost.jsonl")
"""


@pytest.mark.slow
def test_a_file_that_is_missing_on_one_machine_ends_all(config_file, tmp_path):
    command = ["train", f"--config={config_file}", "--workdir=job"]
    first, second = ended(started(2, [command], tmp_path, before=HEARTBEAT + LOST_FILE))
    assert second.code == 2 and "lost.jsonl" in second.err.splitlines()[-1]
    assert first.code in (75, -signal.SIGABRT)
    both = ended(started(2, [[*command, "--config.tasks=lost.jsonl"]], tmp_path, before=HEARTBEAT))
    assert [one.code for one in both] == [2, 2] and all("lost.jsonl" in one.err.splitlines()[-1] for one in both)


@pytest.mark.slow
def test_a_slow_process_is_waited_for(config_file, tmp_path):
    command = ["train", f"--config={config_file}", f"--workdir={tmp_path / 'job'}"]
    first, second = ended(started(2, [command], tmp_path, before=HEARTBEAT + SLOW))
    assert (first.code, second.code) == (0, 0), first.err[-4000:]
    assert Library.load(tmp_path / "job" / "library").names == ("a", "b", "c")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "sent"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP)], ids=["other", "first", "stuck"]
)
def test_when_one_of_two_processes_is_lost_the_other_ends_and_the_same_command_goes_on(
    lost, sent, config_file, tmp_path
):
    settings = ["--config.train.steps=24", "--config.train.save_every=1"]
    command = ["train", f"--config={config_file}", f"--workdir={tmp_path / 'job'}", *settings]
    processes = started(2, [command], tmp_path, before=HEARTBEAT)
    while not any((tmp_path / "job" / "checkpoints").glob("[2-9]")):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    processes[lost].send_signal(sent)
    begin = time.monotonic()
    (left,) = ended([processes[1 - lost]])
    assert time.monotonic() - begin < 60
    words = {75: "another process of this job has ended; the same command, given to all again", -6: "another task died"}
    assert left.code in words and words[left.code] in left.err, (left.code, left.err[-4000:])
    processes[lost].kill()
    ended([processes[lost]])
    first, second = ended(started(2, [command], tmp_path))
    assert (first.code, second.code) == (0, 0), first.err[-4000:]
    (alone,) = ended(started(1, [[*command[:2], f"--workdir={tmp_path / 'alone'}", *settings]], tmp_path, devices=2))
    assert alone.code == 0, alone.err
    libraries = (Library.load(tmp_path / name / "library") for name in ("job", "alone"))
    for leaf, expected in zip(*map(jax.tree.leaves, libraries), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
