"""The key-value cache of decoding."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from modjax.models.config import ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """S columns of keys and values, filled from the left; all rows are filled up to the same column.

    Prompts are therefore padded on the left. Padding and columns not yet written have segment 0, so no query reads
    them. The caller must not write more than S columns: under jit no error can be raised.
    """

    k: jax.Array  # float[L, B, S, K, H], already rotated
    v: jax.Array  # float[L, B, S, K, H]
    positions: jax.Array  # int32[B, S]
    segments: jax.Array  # int32[B, S]
    index: jax.Array  # int32: the next column to write

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, length: int, dtype: jnp.dtype = jnp.float32) -> Cache:
        """A cache of `length` unwritten columns for `batch` rows."""
        kept = jnp.zeros((config.L, batch, length, config.K, config.H), dtype)
        columns = jnp.zeros((batch, length), jnp.int32)
        return cls(k=kept, v=kept, positions=columns, segments=columns, index=jnp.zeros((), jnp.int32))

    def placed(self, positions_BT: jax.Array, segments_BT: jax.Array) -> Cache:
        """A cache with the positions and segments of the next T columns; `filled` then adds their keys and values."""
        start = (0, self.index)
        return dataclasses.replace(
            self,
            positions=jax.lax.dynamic_update_slice(self.positions, positions_BT, start),
            segments=jax.lax.dynamic_update_slice(self.segments, segments_BT, start),
        )

    def filled(self, k_LBTKH: jax.Array, v_LBTKH: jax.Array) -> Cache:
        """A cache with the keys and values of the next T columns, and `index` after them."""
        start = (0, 0, self.index, 0, 0)
        return dataclasses.replace(
            self,
            k=jax.lax.dynamic_update_slice(self.k, k_LBTKH.astype(self.k.dtype), start),
            v=jax.lax.dynamic_update_slice(self.v, v_LBTKH.astype(self.v.dtype), start),
            index=self.index + k_LBTKH.shape[2],
        )
