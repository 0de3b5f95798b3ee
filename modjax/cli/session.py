"""The setting of every verb: processes, compile cache, profile, and the working folder."""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_collections
from absl.flags import FlagValues

from modjax import compile_cache, lock
from modjax.claim import claim
from modjax.cli import together
from modjax.parallel import distributed

HELD = contextlib.ExitStack()  # what a verb holds until its end


@contextlib.contextmanager
def start(flags: FlagValues) -> Iterator[None]:
    """Joins the other processes, turns the compile cache on, and traces the job to the folder --profile, if given.

    Of several processes only the first prints and warns; errors are shown by all.
    """
    if distributed.start(flags.coordinator, flags.processes, flags.process):
        together.let_the_first_speak()
    compile_cache.keep()
    with HELD:
        if flags.profile:
            HELD.enter_context(jax.profiler.trace(flags.profile))
        with together.ending():
            yield


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
