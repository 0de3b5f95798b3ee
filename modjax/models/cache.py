"""The key-value cache of decoding: rows of prompts, and the new tokens of their branches."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of B rows of S tokens, read once, and of the new tokens of X branches in each row.

    A branch continues the path that ends at one node, a token of the row. All branches get their new tokens together:
    each has `count` of G. The caller must not write more than G: under jit no error can be raised.
    """

    k: jax.Array  # float[L, B, K, S, H], already rotated
    v: jax.Array  # float[L, B, K, S, H]
    positions: jax.Array  # int32[B, S]
    ends: jax.Array  # int32[B, S], see `modjax.data.rows.Rows`
    node: jax.Array  # int32[B, X], index in its row of the token after which each branch starts
    new_k: jax.Array  # float[L, B, X, K, G, H], already rotated
    new_v: jax.Array  # float[L, B, X, K, G, H]
    count: jax.Array  # int32

    @property
    def room(self) -> int:
        """G, the most new tokens of a branch."""
        return self.new_k.shape[4]

    def branched(self, node_BX: jax.Array) -> Cache:
        """The same rows with branches that start after other nodes, and no new tokens."""
        L, B, _, K, G, H = self.new_k.shape
        new_k, new_v = (jnp.zeros((L, B, node_BX.shape[1], K, G, H), self.new_k.dtype) for _ in range(2))
        return dataclasses.replace(self, node=node_BX, new_k=new_k, new_v=new_v, count=jnp.int32(0))

    @property
    def next_BX(self) -> jax.Array:
        """int32[B, X], the position of the next token of each branch."""
        return jnp.take_along_axis(self.positions, self.node, axis=1) + 1 + self.count

    def masks(self, window: int | jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Which keys the next token of each branch reads, besides its own: of its row, bool[B, X, S], and of the
        branch's new tokens, bool[G]."""
        index_S, node_BX1 = jnp.arange(self.ends.shape[1])[None, None], self.node[:, :, None]
        row_BXS = (index_S <= node_BX1) & (node_BX1 < self.ends[:, None])
        new_G = jnp.arange(self.room) < self.count
        if window is None:
            return row_BXS, new_G
        row_BXS &= self.next_BX[:, :, None] - self.positions[:, None] < window
        return row_BXS, new_G & (self.count - jnp.arange(self.room) < window)

    def added(self, k_LBXKH: jax.Array, v_LBXKH: jax.Array) -> Cache:
        """A cache with one more token in each branch."""
        start = (0, 0, 0, 0, self.count, 0)
        new = (
            jax.lax.dynamic_update_slice(kept, part[:, :, :, :, None].astype(kept.dtype), start)
            for kept, part in ((self.new_k, k_LBXKH), (self.new_v, v_LBXKH))
        )
        new_k, new_v = new
        return dataclasses.replace(self, new_k=new_k, new_v=new_v, count=self.count + 1)
