"""Rotary position embedding, in two layouts of the pairs of dimensions that are rotated together.

"half": dimension i is rotated with dimension i + rotated / 2; "adjacent": dimension 2 i with dimension 2 i + 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Scaling(NamedTuple):
    """Scaling of the rotary frequencies to a longer context than that of the original training."""

    kind: str  # "linear", "llama3", "yarn", "longrope"
    factor: float = 1.0  # divisor of the frequencies; longrope has one per pair instead
    original: int = 0  # context of the original training, in tokens
    slow: float = 1.0  # pairs with at most this many turns within `original` are scaled by the full factor
    fast: float = 1.0  # pairs with at least this many turns within `original` are not scaled
    truncate: bool = True  # yarn: the ramp between slow and fast starts and ends at whole pairs
    magnitude: float = 1.0  # factor on the rotated dimensions
    short: tuple[float, ...] = ()  # longrope: divisor of each pair's frequency, for sequences up to `original`
    long: tuple[float, ...] = ()  # longrope: the same for longer sequences


class Rope(NamedTuple):
    """One rotary embedding: the base of its frequencies, and their scaling if there is any."""

    theta: float
    scaling: Scaling | None = None

    @property
    def magnitude(self) -> float:
        """The factor on the rotated dimensions."""
        return 1.0 if self.scaling is None else self.scaling.magnitude


def frequencies(dim: int, theta: float, scaling: Scaling | None = None, long: bool = False) -> np.ndarray:
    """theta^(-2 j / dim) of the pairs j < dim / 2 (Su et al. 2021, arXiv:2104.09864, eq. 15), scaled.

    dim: number of rotated dimensions per head (even).
    long: for longrope, use the divisors of sequences longer than `original`.
    Result: float32[dim / 2], radians per position.
    """
    plain_J = theta ** (-np.arange(0, dim, 2) / dim)
    if scaling is not None:
        plain_J = plain_J / _divisors(plain_J, theta, scaling, long)
    return plain_J.astype(np.float32)


def _divisors(plain_J: np.ndarray, theta: float, scaling: Scaling, long: bool) -> np.ndarray:
    if scaling.kind == "longrope":  # Ding et al. 2024, arXiv:2402.13753, section 3.2
        return np.array(scaling.long if long else scaling.short)
    if scaling.kind == "linear":  # Chen et al. 2023, arXiv:2306.15595, eq. 3
        return np.full(plain_J.shape, scaling.factor)
    if scaling.kind == "llama3":  # Dubey et al. 2024, arXiv:2407.21783, section 3.2: a ramp over the number of turns
        turns_J = scaling.original * plain_J / (2 * math.pi)
        kept_J = np.clip((turns_J - scaling.slow) / (scaling.fast - scaling.slow), 0, 1)
    else:  # YaRN, Peng et al. 2023, arXiv:2309.00071, section 3.2: a ramp over the index of the pair
        kept_J = 1 - _ramp(len(plain_J), theta, scaling)
    return 1 / ((1 - kept_J) / scaling.factor + kept_J)


def _ramp(pairs: int, theta: float, scaling: Scaling) -> np.ndarray:
    """Ramp from 0 at the pair with `fast` turns within the original context to 1 at the pair with `slow` turns."""

    def pair(turns: float) -> float:
        return pairs * math.log(scaling.original / (turns * 2 * math.pi)) / math.log(theta)

    first, last = pair(scaling.fast), pair(scaling.slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    return np.clip((np.arange(pairs) - first) / (last - first or 1e-3), 0, 1)


def rope_angles(positions_BT: jax.Array, frequencies: jax.Array) -> jax.Array:
    """positions_BT: int[B, T]; frequencies: float32[J] or [B, T, J]; result: float32[B, T, J] in radians."""
    frequencies_BTJ = jnp.broadcast_to(frequencies, (*positions_BT.shape, frequencies.shape[-1]))
    return positions_BT[:, :, None].astype(jnp.float32) * frequencies_BTJ


def rotate(
    x_BTNH: jax.Array, angles_BTJ: jax.Array, magnitude: float | jax.Array = 1.0, adjacent: bool = False
) -> jax.Array:
    """Rotates the first 2 J dimensions of each head by the angles; the others stay (partial rotary if 2 J < H).

    x_BTNH: float[B, T, N, H]; angles_BTJ: float32[B, T, J]; magnitude: factor on the rotated dimensions.
    adjacent: pairs of neighbouring dimensions are rotated, not one of each half.
    Computed in float32; result like x_BTNH.
    """
    half = angles_BTJ.shape[-1]
    cos = magnitude * jnp.cos(angles_BTJ)[:, :, None, :]
    sin = magnitude * jnp.sin(angles_BTJ)[:, :, None, :]
    places = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if adjacent else (slice(half), slice(half, 2 * half))
    first, second = (x_BTNH[..., place].astype(jnp.float32) for place in places)
    pair = [first * cos - second * sin, second * cos + first * sin]
    if adjacent:
        rotated = jnp.stack(pair, axis=-1).reshape(*first.shape[:-1], 2 * half)
    else:
        rotated = jnp.concatenate(pair, axis=-1)
    return jnp.concatenate([rotated.astype(x_BTNH.dtype), x_BTNH[..., 2 * half :]], axis=-1)
