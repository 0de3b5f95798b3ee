"""The expert axis, the second of every array: [L, E, ...], or [L, 1, ...] where one thing holds for all experts.

So a library whose experts were trained under one frozen A (SEQR, arXiv 2509.18093) holds that A once.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.ops.lora import LoRA


def full(lora: LoRA) -> LoRA:
    """a[..., E, R, I] for b[..., E, R, O], also where a is held once."""
    return lora._replace(a=jnp.broadcast_to(lora.a, (*lora.b.shape[:-1], lora.a.shape[-1])))


def taken(array: jax.Array, ids: np.ndarray) -> jax.Array:
    """What there is of these experts; what is held once stays so."""
    return array if array.shape[1] == 1 else array[:, ids]


def joined(parts: Sequence[jax.Array], counts: Sequence[int]) -> jax.Array:
    """Arrays of so many experts each, side by side.

    Held once where all of them are and are the same to the last bit. Zeros, which stand for factors that are not there,
    are not shared.
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
