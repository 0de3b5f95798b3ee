"""Normalisation of the vectors that a router compares."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modjax.arguments import choice
from modjax.ops.norms import unit

Norm = Literal["none", "unit", "layernorm"]


def normed(x: jax.Array, norm: Norm) -> jax.Array:
    """x in float32: unchanged, divided by its length, or centred and divided by its standard deviation.

    Over the last axis. "layernorm" has no gain and no bias, and adds 1e-5 to the variance, as in PyTorch; a vector of
    zeros stays zero.
    """
    x = x.astype(jnp.float32)
    if norm == "unit":
        return unit(x)
    if norm == "layernorm":
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    return x


def check_norm(name: str, norm: str) -> None:
    """Raises InputError naming the setting unless `norm` is a Norm."""
    choice(name, norm, get_args(Norm))
