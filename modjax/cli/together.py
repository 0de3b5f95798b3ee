"""Several processes that run one command: the first speaks for all, and when one fails all end."""

import contextlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator

import jax

from modjax.cli.ending import show
from modjax.errors import Stopped
from modjax.parallel import distributed

LINGER = 3.0  # seconds that the first process gives the others to find the same fault


def let_the_first_speak() -> None:
    """From here on only the first process prints and warns, and standard output has nothing else.

    Libraries that join the processes, such as Gloo, write to standard output on their own; it becomes standard error.
    """
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    first = distributed.is_writer()
    sys.stdout = open(own if first else os.devnull, "w", buffering=1)  # noqa: SIM115, until the process ends
    if not first:
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """With several processes, one that fails ends at once, so that the others see it and end, too.

    An ordinary end would wait for the others, which wait for this one. The first, through which all are joined, gives
    the others the time to find the same fault, and to say so.
    """
    try:
        yield
    except Stopped:  # all at the same step
        raise
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        if distributed.is_lost(error):
            error = Stopped("another process of this job has ended; the same command, given to all again, goes on")
        code = show(error)
        sys.stdout.flush()
        sys.stderr.flush()
        if distributed.is_writer():
            time.sleep(LINGER)
        os._exit(code)
