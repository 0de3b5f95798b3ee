"""Checkpoints of a training state with Orbax: written in the background, restored with the same shardings."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from modjax.errors import InputError


class Checkpoints:
    """The last two checkpoints in a folder; as a context manager, it waits on exit until all writes are complete."""

    def __init__(self, path: str | pathlib.Path, every: int):
        """every: steps between checkpoints."""
        self._path = pathlib.Path(path).absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._path,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._checkpointer.close()

    def restore(self, state: Any) -> Any:
        """The newest checkpoint with the shapes, dtypes and shardings of `state`; `state` itself if there is none.

        Raises InputError if the checkpoint has other arrays or cannot be read.
        """
        if self._checkpointer.latest is None:
            return state
        step = self._checkpointer.latest.step
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        try:
            found = self._checkpointer.metadata(step).metadata
            if found is not None:
                self._check(step, _shapes(found), _shapes(state))
                return self._checkpointer.load(step, like)
        except (OSError, KeyError) as error:
            raise self._unreadable(step) from error
        raise self._unreadable(step)

    def save(self, step: int, state: Any) -> None:
        """Saves the state if the step is due; the arrays may be donated as soon as this returns."""
        self._checkpointer.save(step, state)

    def _check(self, step, found, expected):
        for path in sorted(found | expected):
            if found.get(path) != expected.get(path):
                raise InputError(
                    f"{self._path}: checkpoint {step} has {path} {found.get(path, 'missing')}, this run's is "
                    f"{expected.get(path, 'missing')}; expected the settings that made the checkpoint, or a new folder"
                )

    def _unreadable(self, step):
        return InputError(f"{self._path}: checkpoint {step} cannot be read; remove it to continue from an older one")


def _shapes(tree):
    leaves = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves}
