"""What a router does to the length of a vector before it compares it with another."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modjax.errors import InputError

Norm = Literal["none", "unit", "layernorm"]


def normed(x: jax.Array, norm: Norm) -> jax.Array:
    """float32 like x: as it is, divided by its length, or less its mean and divided by its deviation.

    Over the last axis. "layernorm" has neither gain nor bias, and adds 1e-5 to the variance as PyTorch does; a vector
    of zeros stays one.
    """
    x = x.astype(jnp.float32)
    if norm == "unit":
        length = jnp.linalg.norm(x, axis=-1, keepdims=True)
        return x / jnp.where(length > 0, length, 1)
    if norm == "layernorm":
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    return x


def check_norm(name: str, norm: str) -> None:
    """Raises InputError, naming the setting, unless this is a Norm."""
    if norm not in get_args(Norm):
        raise InputError(f"{name}={norm!r}: expected one of {', '.join(get_args(Norm))}")
