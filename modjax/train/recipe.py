"""Recipes: what a run trains, and how the trained arrays change the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from modjax import digest
from modjax.data.rows import Rows
from modjax.errors import InputError
from modjax.models.decoder import Decoder
from modjax.ops.lora import Loras
from modjax.parallel import rules


class Recipe:
    """A kind of training. One run trains E members in lockstep: E experts, E new tasks, or one shared model.

    Attributes:
      given: arrays that `start` reads.
      frozen: arrays that `attach` reads and that no step changes. In both, axis 1 is the axis of members, axis 0 in
        vectors; a leaf of size 1 there is shared by all members.
      rates: {top-level key of the trained arrays: factor of the learning rate there}; 1 elsewhere.
      by_task: whether each row holds examples of one task, whose index `rows.task` gives; else rows are packed from
        all tasks of a member.
    """

    given: Any = ()
    frozen: Any = ()
    rates: Mapping[str, float] = {}
    by_task: bool = False

    def partition(self, name: str) -> jax.P:
        """The placement of trained arrays on a mesh, axis of members second; name: the last key of their dicts."""
        return rules.LORA

    def made_of(self) -> dict[str, Any]:
        """The inputs of the recipe besides model, tasks and settings, as plain data with digests.

        A workdir is tied to it: a run with anything else does not resume there.
        """
        arrays = {"given": self.given, "frozen": self.frozen}
        return {name: digest.of_arrays(tree) for name, tree in arrays.items()} | {"rates": dict(self.rates)}

    def start(self, key: jax.Array, given: Any, n_members: int) -> Any:
        """The trained arrays of some members before the first step: float32 with the axis of members second.

        given: the recipe's, of these members.
        """
        raise NotImplementedError

    def attach(
        self, decoder: Decoder, trained: Any, frozen: Any, rows: Rows, key_B: jax.Array | None
    ) -> tuple[Decoder, dict[str, Any]]:
        """The decoder that one member's rows [B, ...] run through, and the keyword arguments it is called with.

        Args:
          trained, frozen: that member's, without their axis of members.
          key_B: a key per row, for dropout; None in validation.
        """
        raise NotImplementedError

    def experts(self, trained: Any, frozen: Any) -> Loras:
        """Each member as one expert, {site: LoRA(a[L,E,R,I], b[L,E,R,O], scale[L,E])}.

        Raises InputError if a member is not one LoRA.
        """
        raise InputError("stop_by='rouge_l': this training has no LoRA per member; expected stop_by='loss'")


def member_axis(leaf: jax.Array) -> int:
    """The axis of members in the arrays of a run: the second, in vectors the first."""
    return min(1, leaf.ndim - 1)


def of_members(tree: Any, numbers: np.ndarray, n_members: int) -> Any:
    """The arrays of some of the members, in this order; arrays that all members share stay."""
    if np.array_equal(numbers, np.arange(n_members)):
        return tree

    def one(leaf):
        axis = member_axis(leaf)
        return leaf[(slice(None),) * axis + (numbers,)] if leaf.shape[axis] == n_members else leaf

    return jax.tree.map(one, tree)


def along(tree: Any, n_members: int) -> tuple[Any, Any]:
    """(frozen arrays, their `in_axes` for a vmap over members): arrays that all members share are not mapped."""

    def one(leaf):
        axis = member_axis(leaf)
        return (leaf, axis) if leaf.shape[axis] == n_members else (leaf.squeeze(axis), None)

    leaves, structure = jax.tree.flatten(tree)
    pairs = [one(leaf) for leaf in leaves]
    return tuple(jax.tree.unflatten(structure, [pair[i] for pair in pairs]) for i in range(2))
