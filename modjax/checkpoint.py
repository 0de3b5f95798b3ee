"""Checkpoints of a training state with Orbax: written in the background, restored onto the same shardings."""

import pathlib
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp


class Checkpoints:
    """The last two checkpoints of a folder; a context manager that finishes what is being written."""

    def __init__(self, path: str | pathlib.Path, every: int):
        self._checkpointer = ocp.training.Checkpointer(
            pathlib.Path(path).absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
            preservation_policy=ocp.training.preservation_policies.LatestN(2),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._checkpointer.close()

    def restore(self, state: Any) -> Any:
        """The newest checkpoint in the shapes, dtypes and shardings of `state`; `state` where there is none."""
        if self._checkpointer.latest is None:
            return state
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
        return self._checkpointer.load(self._checkpointer.latest.step, like)

    def save(self, step: int, state: Any) -> None:
        """Saves when the interval says so; the arrays may be donated as soon as this returns."""
        self._checkpointer.save(step, state)
