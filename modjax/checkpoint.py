"""Checkpoints of a training state with Orbax, with checksums: restored with the same shardings, and never damaged.

checkpoints/
  4/                 a step; complete as soon as it has this name
    checksums.json   {file: digest} of all that is below state/, written before the step is complete
    state/           the arrays, as Orbax writes them; the files beside it are never read again
  6.damaged/         a step whose files differ from its checksums
"""

import pathlib
import shutil
import warnings
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from modjax import digest
from modjax.errors import InputError
from modjax.files import read_json_object, write_json
from modjax.parallel.distributed import from_first

CHECKSUMS = "checksums.json"


class Checkpoints:
    """The newest checkpoints in a folder; as a context manager, it waits on exit until all writes are complete."""

    def __init__(self, path: str | pathlib.Path, every: int, keep: int = 2):
        """Moves damaged checkpoints that are newer than the newest sound one aside, with a warning.

        Args:
          every: steps between checkpoints.
          keep: how many are kept; older ones are deleted.

        Raises InputError if all checkpoints are damaged.
        """
        self._path = path = pathlib.Path(path).absolute()
        from_first(lambda: _set_aside(path))
        context = ocp.Context()
        context.async_options.post_finalization_callback = lambda: _seal(path)
        self._checkpointer = ocp.training.Checkpointer(
            path,
            context=context,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,  # those of killed runs
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._checkpointer.close()

    @property
    def newest(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """{path: shape} of the newest checkpoint's arrays; None if there is none. Raises InputError as `restore`."""
        return None if self.newest is None else _shapes(self._read(self._metadata))

    def restore(self, state: Any) -> Any:
        """The newest checkpoint with the shapes, dtypes and shardings of `state`; `state` itself if there is none.

        Raises InputError if the checkpoint has other arrays or cannot be read.
        """
        if self.newest is None:
            return state
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        self._check(self.newest, self.shapes(), _shapes(state))
        return self._read(lambda: self._checkpointer.load(self.newest, like))

    def _metadata(self):
        return self._checkpointer.metadata(self.newest).metadata

    def _read(self, read):
        try:
            found = read()
        except (OSError, KeyError) as error:
            raise self._unreadable(self.newest) from error
        if found is None:
            raise self._unreadable(self.newest)
        return found

    def save(self, step: int, state: Any, force: bool = False) -> None:
        """Saves the state if the step is due, or if forced; the arrays may be donated as soon as this returns."""
        self._checkpointer.save(step, state, force=force)

    def _check(self, step, found, expected):
        for path in sorted(found | expected):
            if found.get(path) != expected.get(path):
                raise InputError(
                    f"{self._path}: checkpoint {step} has {path} {found.get(path, 'missing')}, this run's is "
                    f"{expected.get(path, 'missing')}; expected the settings that made the checkpoint, or a new folder"
                )

    def _unreadable(self, step):
        return InputError(f"{self._path}: checkpoint {step} cannot be read; remove it to continue from an older one")


def _seal(path: pathlib.Path) -> None:
    """Writes the checksums of the step that is being saved; Orbax calls it before it gives the folder its name."""
    (folder,) = path.glob("*.orbax-checkpoint-tmp")
    write_json(folder / CHECKSUMS, _checksums(folder))


def _set_aside(path: pathlib.Path) -> None:
    """Renames the damaged checkpoints that are newer than the newest sound one."""
    numbers = [int(one.name) for one in path.glob("*") if one.name.isdecimal()]
    damaged = {}
    for step in sorted(numbers, reverse=True):
        fault = _fault(path / str(step))
        if fault is None:
            break
        damaged[step] = fault
    else:
        if damaged:
            newest, fault = next(iter(damaged.items()))
            raise InputError(
                f"{path}: none of its checkpoints is sound (in {newest}, {fault}); remove the folder to start the run "
                "from its beginning"
            )
    for newer, fault in damaged.items():
        aside = path / f"{newer}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        (path / str(newer)).rename(aside)
        warnings.warn(
            f"{path}: checkpoint {newer} is damaged ({fault}); the run continues from checkpoint {step}, and "
            f"{aside.name} keeps the damaged one",
            stacklevel=2,
        )


def _fault(folder: pathlib.Path) -> str | None:
    """The first fault of a checkpoint's files; None if they are as they were written."""
    try:
        expected = read_json_object(folder / CHECKSUMS)
    except InputError:
        return f"{CHECKSUMS} is missing or damaged"
    found = _checksums(folder)
    differ = [name for name in sorted({*expected, *found}) if found.get(name) != expected.get(name)]
    return f"{differ[0]} is {'changed' if differ[0] in found else 'missing'}" if differ else None


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in (folder / "state").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): digest.of_file(path) for path in files}


def _shapes(tree):
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
