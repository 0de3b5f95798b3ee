"""The expert axis, the second of every array: [L, E, ...], or [L, 1, ...] where all experts share one array.

A library whose experts were trained under one frozen A (SEQR, arXiv 2509.18093) holds that A once in this way.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def taken(array: jax.Array, ids: np.ndarray) -> jax.Array:
    """The array of these experts; one that all experts share stays as it is."""
    return array if array.shape[1] == 1 else array[:, ids]


def joined(parts: Sequence[jax.Array], counts: Sequence[int]) -> jax.Array:
    """Arrays of several libraries side by side; counts: the number of experts of each.

    One array for all experts if every part is one and they are equal to the last bit. Zeros, which stand for missing
    factors, are not shared.
    """
    first = parts[0]
    if all(part.shape[1] == 1 and jnp.array_equal(part, first) for part in parts) and jnp.any(first):
        return first
    each = zip(parts, counts, strict=True)
    return jnp.concatenate([jnp.broadcast_to(x, (x.shape[0], n, *x.shape[2:])) for x, n in each], axis=1)


def pad_rank(factor_LERI: jax.Array, rank: int) -> jax.Array:
    """Zero rows up to `rank`; they add nothing to the product."""
    missing = rank - factor_LERI.shape[2]
    return jnp.pad(factor_LERI, ((0, 0), (0, 0), (0, missing), (0, 0)))
