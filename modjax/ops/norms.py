"""Normalisation over the last axis, computed in float32 and returned in the input's dtype."""

import jax
import jax.numpy as jnp


def rms_norm(x: jax.Array, scale: jax.Array, eps: float, offset: float = 0.0) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) * (offset + scale) (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

    x: float[..., D]; scale: float[D]; offset: 1 if scale - 1 is stored as the scale; result: like x.
    """
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (normed * (offset + _along_last(scale, x))).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """(x - mean(x)) / sqrt(var(x) + eps) * scale + bias (Ba et al. 2016, arXiv:1607.06450, section 3).

    x: float[..., D]; scale, bias: float[D]; result: like x.
    """
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + eps)
    return (normed * _along_last(scale, x) + _along_last(bias, x)).astype(x.dtype)


def _along_last(vector_D: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.broadcast_to(vector_D.astype(jnp.float32), x.shape)
