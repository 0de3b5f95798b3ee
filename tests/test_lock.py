"""The lock of a folder: one holder at a time, whatever becomes of the earlier ones."""

import errno
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from modjax import lock
from modjax.errors import Busy, InputError
from modjax.lock import locked

ROOT = pathlib.Path(__file__).parents[1]
HOLDER = """
import sys, time
from modjax.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process, which holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_the_first_is(holder, tmp_path):
    words = rf"{tmp_path}: process {holder.pid} on .* works in this folder; wait for its end or stop it"
    with pytest.raises(Busy, match=words), locked(tmp_path):
        pytest.fail("both hold the lock")


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / lock.NAME).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_afterwards_the_folder_is_free_and_as_it_was(tmp_path):
    for _ in range(2):
        with locked(tmp_path / "new" / "job"):
            assert (tmp_path / "new" / "job" / lock.NAME).exists()
        assert list((tmp_path / "new" / "job").iterdir()) == []


def test_a_process_may_ask_again_for_the_lock_that_it_holds(tmp_path):
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        assert (tmp_path / lock.NAME).exists()


def test_an_error_within_frees_it(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_has_just_deleted_is_no_lock(tmp_path, monkeypatch):
    """The first file that is opened is deleted before it is locked, as by a run that ends at that moment."""
    held, flock = [], lock.fcntl.flock

    def late(file, operation):
        if not held:
            (tmp_path / lock.NAME).unlink()
        held.append(file)
        flock(file, operation)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with locked(tmp_path):
        assert len(held) == 2
        assert (tmp_path / lock.NAME).read_text().startswith(f"process {os.getpid()} on ")


def test_a_file_system_without_locks_holds_no_run_up(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"file/job: cannot be written \(Not a directory\)"),
        locked(tmp_path / "file" / "job"),
    ):
        pass
