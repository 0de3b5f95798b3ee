"""The expert axis, the second of every array: [L, E, ...], or [L, 1, ...] where all experts share one array.

The second form stores A once for experts that were all trained with the same frozen A (SEQR, arXiv 2509.18093).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def taken(array: jax.Array, ids: np.ndarray) -> jax.Array:
    """The array of the experts `ids`; an array that all experts share is returned unchanged."""
    return array if array.shape[1] == 1 else array[:, ids]


def joined(parts: Sequence[jax.Array], counts: Sequence[int]) -> jax.Array:
    """Arrays of several libraries, concatenated along the expert axis; counts: the number of experts of each.

    If every part is shared by its experts and all parts are bit-identical, the result is shared too, [L, 1, ...].
    Arrays of zeros, which stand for missing factors, are not shared.
    """
    first = parts[0]
    if all(part.shape[1] == 1 and jnp.array_equal(part, first) for part in parts) and jnp.any(first):
        return first
    each = zip(parts, counts, strict=True)
    return jnp.concatenate([jnp.broadcast_to(x, (x.shape[0], n, *x.shape[2:])) for x, n in each], axis=1)


def pad_rank(factor_LERI: jax.Array, rank: int) -> jax.Array:
    """The factor padded to `rank` with rows of zeros, which add nothing to the product B^T A."""
    missing = rank - factor_LERI.shape[2]
    return jnp.pad(factor_LERI, ((0, 0), (0, 0), (0, missing), (0, 0)))
