"""The setting of every verb: processes, compile cache, profile, and the working folder."""

import contextlib
import functools
import json
import logging
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections
from absl.flags import FlagValues

from modjax import compile_cache, lock
from modjax.claim import claim
from modjax.cli import ending
from modjax.errors import Stopped
from modjax.parallel import distributed

LINGER = 3.0  # seconds
HELD = contextlib.ExitStack()  # what a verb holds until its end


@contextlib.contextmanager
def start(flags: FlagValues) -> Iterator[None]:
    """Joins the other processes, turns the compile cache on, and traces the job to the folder --profile, if given.

    Of several processes only the first prints and warns; errors are shown by all.
    """
    if distributed.start(flags.coordinator, flags.processes, flags.process):
        _let_the_first_speak()
    compile_cache.keep()
    with HELD:
        if flags.profile:
            HELD.enter_context(jax.profiler.trace(flags.profile))
        with _ending_together():
            yield


def _let_the_first_speak():
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
def _ending_together():
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
        code = ending.show(error)
        sys.stdout.flush()
        sys.stderr.flush()
        if distributed.is_writer():
            time.sleep(LINGER)
        os._exit(code)


def first_alone(run: Callable[..., None]) -> Callable[..., None]:
    """Makes the first process alone run a verb, while the others wait for its end."""

    @functools.wraps(run)
    def alone(*arguments):
        distributed.from_first(lambda: run(*arguments))

    return alone


def enter(workdir: str, config: ml_collections.ConfigDict) -> pathlib.Path:
    """The working folder, created if it is missing, with the resolved config in config.json.

    Raises InputError if the folder belongs to a job of another config, and leaves it unchanged; Busy, if another run
    works in it. Only the first process reads and writes; all get its result.
    """
    folder = pathlib.Path(workdir)
    distributed.from_first(lambda: _claim(folder, json.loads(config.to_json())))
    return folder


def bind(folder: pathlib.Path, content: Mapping[str, Any], *results: str) -> None:
    """Ties the working folder to what its config points to; a verb calls it before it looks for its results.

    Args:
      content: plain data with digests, for content.json.
      results: the files and folders that the verb leaves.

    Raises InputError if the content has changed since the results were made, and leaves them unchanged.
    """
    kept = [folder / name for name in results]
    distributed.from_first(lambda: claim(folder / "content.json", dict(content), kept))


def _claim(folder, resolved):
    HELD.enter_context(lock.locked(folder))
    claim(folder / "config.json", resolved, (path for path in folder.iterdir() if path.name != lock.NAME))
