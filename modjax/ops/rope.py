"""Rotary position embedding in the "half" layout: coordinate i turns with coordinate i + rotated / 2."""

import jax
import jax.numpy as jnp


def rope_angles(positions_BT: jax.Array, dim: int, theta: float) -> jax.Array:
    """Angles position * theta^(-2 j / dim) of the pairs j < dim / 2 (Su et al. 2021, arXiv:2104.09864, eq. 15).

    positions_BT: int[B, T]; dim: how many coordinates of a head turn (even); result: float32[B, T, dim / 2] in radians.
    """
    frequencies = theta ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    return positions_BT[:, :, None].astype(jnp.float32) * frequencies[None, None, :]


def rotate(x_BTNH: jax.Array, angles_BTJ: jax.Array) -> jax.Array:
    """Turn the first 2 J coordinates of each head by the angles and pass the others (partial rotary when 2 J < H).

    x_BTNH: float[B, T, N, H]; angles_BTJ: float32[B, T, J]; computed in float32, result like x_BTNH.
    """
    half = angles_BTJ.shape[-1]
    cos, sin = jnp.cos(angles_BTJ)[:, :, None, :], jnp.sin(angles_BTJ)[:, :, None, :]
    first = x_BTNH[..., :half].astype(jnp.float32)
    second = x_BTNH[..., half : 2 * half].astype(jnp.float32)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([turned.astype(x_BTNH.dtype), x_BTNH[..., 2 * half :]], axis=-1)
