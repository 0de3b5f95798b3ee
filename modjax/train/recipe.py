"""What a run trains, and how that changes the decoder: all that differs from one way of training to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from modjax.data.pack import Rows
from modjax.errors import InputError
from modjax.models.decoder import Decoder
from modjax.ops.lora import LoRA
from modjax.parallel import rules


class Recipe:
    """A way of training. One run trains E members of it in lockstep: E experts, E new tasks, one shared model.

    Attributes:
      given: arrays that `start` may read.
      frozen: arrays that `attach` reads and no step changes. Axis 1 is that of the members, axis 0 in vectors; a leaf
        with 1 there belongs to all members alike.
      rates: {top-level key of the trained arrays: what the learning rate is multiplied with there}; 1 elsewhere.
      by_task: whether a row holds examples of one task alone, so that `rows.task` says which of its member's tasks
        it is; else rows are packed from all.
    """

    given: Any = ()
    frozen: Any = ()
    rates: Mapping[str, float] = {}
    by_task: bool = False

    def partition(self, name: str) -> jax.P:
        """Where trained arrays lie on a mesh, axis of members second; name is the last key of their dicts."""
        return rules.LORA

    def start(self, key: jax.Array, given: Any) -> Any:
        """The trained arrays before the first step: float32 with at least two axes, that of the members second."""
        raise NotImplementedError

    def attach(
        self, decoder: Decoder, trained: Any, frozen: Any, rows: Rows, key: jax.Array | None
    ) -> tuple[Decoder, dict[str, Any]]:
        """The decoder that one member's rows [B, ...] run through, and the keyword arguments it is called with.

        Args:
          trained, frozen: that member's, without their axis of members.
          key: for dropout; None when the model is judged.
        """
        raise NotImplementedError

    def experts(self, trained: Any, frozen: Any) -> tuple[dict[str, LoRA], Any]:
        """Each member as one expert, {site: LoRA(a[L,E,R,I], b[L,E,R,O])} and scales float32[E].

        Raises InputError where members are none.
        """
        raise InputError("stop_by='rouge_l': what is trained is not one LoRA a member; expected stop_by='loss'")


def along(tree: Any, n_members: int) -> tuple[Any, Any]:
    """(frozen arrays, their `in_axes` for a vmap over members): what belongs to all members alike is not mapped."""

    def one(leaf):
        axis = min(1, leaf.ndim - 1)
        return (leaf, axis) if leaf.shape[axis] == n_members else (leaf.squeeze(axis), None)

    leaves, structure = jax.tree.flatten(tree)
    pairs = [one(leaf) for leaf in leaves]
    return tuple(jax.tree.unflatten(structure, [pair[i] for pair in pairs]) for i in range(2))
