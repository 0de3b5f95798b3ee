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
    """Holds the lock of a folder, which is created if it is missing; within the lock a process may ask for it again.

    A run that is killed leaves the file but not the lock. File systems without locks hold no run up.

    Raises Busy, naming the host and process, if another one holds the lock, and InputError for a folder that cannot be
    written.
    """
    path = pathlib.Path(folder) / NAME
    with os_errors(folder, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened(path)
    if file is None:
        yield
        return
    with file:
        try:
            file.truncate(0)
            file.write(_own_name())
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock ends: the file is still this run's


def _own_name() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _opened(path: pathlib.Path) -> TextIO | None:
    """The file, locked; None if this process has locked it before.

    An earlier run may delete the file after it is opened here and before it is locked: then there is a new one.
    """
    while True:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(path.open("a+", encoding="utf-8"))
            holder = _lock(file)
            if holder == _own_name():
                return None
            if holder is not None:
                raise Busy(f"{path.parent}: {holder} works in this folder; wait for its end or stop it")
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                stack.pop_all()
                return file


def _lock(file: TextIO) -> str | None:
    """Locks a file; gives the name of its holder if there is one."""
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        return file.read() or "another process"
    except OSError:  # a file system without locks
        return None
    return None
