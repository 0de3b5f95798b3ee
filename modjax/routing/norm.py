"""Normalisation of the vectors that a router compares."""

from typing import Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError

Norm = Literal["none", "unit", "layernorm"]
Array = TypeVar("Array", np.ndarray, jax.Array)


def normed(x: jax.Array, norm: Norm) -> jax.Array:
    """float32 like x: unchanged, divided by its length, or centred and divided by its standard deviation.

    Over the last axis. "layernorm" has neither gain nor bias, and adds 1e-5 to the variance as PyTorch does; a vector
    of zeros stays zero.
    """
    x = x.astype(jnp.float32)
    if norm == "unit":
        return unit(x)
    if norm == "layernorm":
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + 1e-5)
    return x


def unit(x: Array) -> Array:
    """x divided by its length over the last axis, in its own dtype and library (NumPy or JAX); zeros stay zero."""
    length = (x**2).sum(axis=-1, keepdims=True) ** 0.5
    return x / (length + (length == 0))


def check_norm(name: str, norm: str) -> None:
    """Raises InputError naming the setting unless `norm` is a Norm."""
    if norm not in get_args(Norm):
        raise InputError(f"{name}={norm!r}: expected one of {', '.join(get_args(Norm))}")
