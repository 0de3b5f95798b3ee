"""Normalisation over the last axis. The norms of models compute in float32 and return the input's dtype."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar("Array", np.ndarray, jax.Array)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float, offset: float = 0.0) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * (offset + scale) (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

    x: float[..., D]; scale: float[D]; offset: 1 if scale - 1 is stored as the scale; result: like x.
    """
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (normed * (offset + _along_last(scale, x))).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None, eps: float) -> jax.Array:
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias (Ba et al. 2016, arXiv:1607.06450, section 3).

    x: float[..., D]; result: like x.
    scale, bias: float[D], float[N, D] if each of N vectors side by side has its own, or None for a norm without them.
    """
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    if scale is not None:
        normed = normed * _along_last(scale, x)
    if bias is not None:
        normed = normed + _along_last(bias, x)
    return normed.astype(x.dtype)


def unit(x: Array) -> Array:
    """x divided by its length, in its own dtype and as an array of NumPy or JAX, as x is; zeros stay zero."""
    length = (x**2).sum(axis=-1, keepdims=True) ** 0.5
    return x / (length + (length == 0))


def _along_last(vector_D: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(vector_D.astype(jnp.float32), x.shape)
