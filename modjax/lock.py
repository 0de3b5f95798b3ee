"""One run at a time in a folder: a lock of the operating system, which ends with the process that holds it."""

import contextlib
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import TextIO

from modjax.errors import Busy
from modjax.files import os_errors

try:
    import fcntl
except ImportError:  # Windows, which has no such locks
    fcntl = None

NAME = ".lock"  # the file that is locked; it says who holds the lock, and is there as long as a run is


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Holds the lock of a folder, which is created if it is missing.

    A run that is killed leaves the file but not the lock. File systems without locks hold no run up.

    Raises Busy, naming the host and process, if another run holds the lock, and InputError for a folder that cannot be
    written.
    """
    path = pathlib.Path(folder) / NAME
    with os_errors(folder, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _open(path)
    with file:
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock ends: the file is still this run's


def _open(path: pathlib.Path) -> TextIO:
    """The file, opened and locked. It is the one at `path`: an earlier run may delete the one that was opened."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, path)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: TextIO, path: pathlib.Path) -> None:
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise Busy(
            f"{path.parent}: {holder} works in this folder; wait for its end or stop it, or give another folder"
        ) from error
    except OSError:  # a file system without locks
        return
