"""A batch in groups of experts and rows, one after another: the memory of one group, the result of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modjax.data.rows import Rows
from modjax.parallel import rules
from modjax.train.recipe import member_axis


class Groups(NamedTuple):
    """How a batch [E, B] is cut. On a mesh each device cuts its own experts and rows, and the sizes are those of one.

    The last group along an axis overlaps the one before it where the size of a group does not divide the whole.
    """

    E: int
    B: int
    experts: int  # of a group
    rows: int  # of a group, per expert
    devices: tuple[int, int]  # along E and along B

    @classmethod
    def of(cls, E: int, B: int, micro: int, mesh: jax.sharding.Mesh | None) -> Groups:
        """The groups of E experts with B rows each, on all devices; at most `micro` rows per device, 0 for all."""
        devices = (1, 1)
        if mesh is not None:
            devices = rules.parts(rules.of_members(E), mesh)
        E, B = E // devices[0], B // devices[1]
        micro = micro or E * B
        return cls(E, B, _even(E, max(1, micro // B)), _even(B, min(micro, B)), devices)

    @property
    def number(self) -> int:
        """Number of groups."""
        return self._per_expert * -(-self.E // self.experts)

    @property
    def _per_expert(self):
        return -(-self.B // self.rows)

    def summed(self, f: Callable[..., Any], zeros: Any, members: Any, rows: Rows, keys_EB: jax.Array | None) -> Any:
        """The sum of f(members, rows, keys_EB) over the groups.

        Args:
          f: gives arrays that are sums over rows; rows that another group has counted have weight 0.
          zeros: those of all experts, 0.
          members: arrays of the experts, by `member_axis`, as the results are.
          rows, keys_EB: fields [E, B, ...], and a key per row or None.
        """
        if self.number == 1:
            return f(members, rows, keys_EB)

        def add(sums, number):
            expert, row = number // self._per_expert, number % self._per_expert
            experts = _Span(jnp.minimum(expert * self.experts, self.E - self.experts), self.experts, self.devices[0])
            within = _Span(jnp.minimum(row * self.rows, self.B - self.rows), self.rows, self.devices[1])
            own = jax.tree.map(lambda leaf: experts.of(leaf, member_axis(leaf)), members)
            part, keys = jax.tree.map(lambda leaf: within.of(experts.of(leaf, 0), 1), (rows, keys_EB))
            fresh_B = jnp.tile(within.start + jnp.arange(self.rows) >= row * self.rows, self.devices[1])
            part = part._replace(weights=part.weights * fresh_B[None, :, None])

            def added(held, new):
                axis = member_axis(held)
                before = jnp.where(row == 0, 0, experts.of(held, axis))  # experts in two groups count once
                return experts.put(held, before + new, axis)

            return jax.tree.map(added, sums, f(own, part, keys)), None

        return jax.lax.scan(add, zeros, jnp.arange(self.number))[0]


class _Span(NamedTuple):
    """A range of an axis that is split over devices: the same range of the part of each."""

    start: jax.Array
    size: int
    devices: int

    def of(self, leaf, axis):
        """The range of an array; an axis of size 1 is shared, and stays whole."""
        if leaf.shape[axis] == 1:
            return leaf
        part = jax.lax.dynamic_slice_in_dim(self._split(leaf, axis), self.start, self.size, axis + 1)
        return part.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 1 :])

    def put(self, leaf, part, axis):
        """The array with another range."""
        split, part = self._split(leaf, axis), self._split(part, axis)
        return jax.lax.dynamic_update_slice_in_dim(split, part, self.start, axis + 1).reshape(leaf.shape)

    def _split(self, leaf, axis):
        return leaf.reshape(*leaf.shape[:axis], self.devices, -1, *leaf.shape[axis + 1 :])


def _even(size, most):
    """The size of the fewest parts of at most `most`, which differ as little as possible."""
    parts = -(-size // most)
    return -(-size // parts)
