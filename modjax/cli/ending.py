"""How a command ends: the line that it prints for an error, and its exit code."""

import os
import re
import sys
import traceback

from modjax.errors import InputError, Stopped

BUG, FAULTY_INPUT, FILE_SYSTEM, STOPPED = 1, 2, 74, 75  # the last two: EX_IOERR and EX_TEMPFAIL of sysexits.h


def show(error: Exception) -> int:
    """Prints an error on standard error, in one line unless it is a bug; returns the exit code."""
    if isinstance(error, InputError):
        return _line(str(error), FAULTY_INPUT)
    if isinstance(error, Stopped):
        return _line(str(error), STOPPED)
    if text := _of_file_system(error):
        return _line(f"{text}; when that is mended, the same command goes on", FILE_SYSTEM)
    traceback.print_exception(error)
    return BUG


def _of_file_system(error) -> str | None:
    """What an error of the file system says. Those of tensorstore, which writes checkpoints, are ValueErrors."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if found := re.search(r"\"(.*?)\".*\[os_error_code='(\d+)'\]", str(error)):
        return f"{found[1]}: {os.strerror(int(found[2]))}"
    return None


def _line(text, code):
    print(f"modjax: {text}", file=sys.stderr)
    return code
