"""Merging entry by entry: which entries of an expert are kept, and how those of several experts are combined.

Everything here acts on one layer's arrays x[E, X, Y]: factors A, factors B, or dense updates.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from modjax.ops.linalg import kth_smallest_magnitude


class Largest(NamedTuple):
    """Keeps the `count` entries of largest magnitude of each expert, at least one, and all that tie with the last."""

    count_E: jax.Array  # int32

    def __call__(self, x_EXY):
        rows_EP = x_EXY.reshape(x_EXY.shape[0], -1)
        dropped_E = jnp.clip(rows_EP.shape[1] - self.count_E, 0, rows_EP.shape[1] - 1)
        least_E = kth_smallest_magnitude([rows_EP], dropped_E)
        return jnp.where(jnp.abs(x_EXY) >= least_E[:, None, None], x_EXY, 0)


class Drawn(NamedTuple):
    """Keeps each entry with a probability and divides it by that probability, so that its expectation is unchanged."""

    key_E: jax.Array
    density_E: jax.Array

    def __call__(self, x_EXY):
        def one(key, density, x_XY):
            return jnp.where(jax.random.bernoulli(key, density, x_XY.shape), x_XY / density, 0)

        return jax.vmap(one)(self.key_E, self.density_E, x_EXY)


Thin = Largest | Drawn


@functools.partial(jax.jit, static_argnames="elect")
def merged_layer(x_EXY: jax.Array, thin: Thin, share_E: jax.Array, elect: bool) -> jax.Array:
    """The thinned arrays of all experts as one, float32[X, Y].

        elect=False   sum_e w_e x_e
        elect=True    the mean of w_e x_e over the experts whose sign is that of sum_e x_e

    Entries of zero have no sign and are not counted; a sum of 0 elects +. Weights do not influence the election.
    (arXiv 2306.01708, section 4, with the weights of PEFT.)
    """
    x_EXY = thin(x_EXY)
    shared_EXY = share_E[:, None, None] * x_EXY
    if not elect:
        return jnp.sum(shared_EXY, axis=0)
    elected_XY = jnp.where(jnp.sum(x_EXY, axis=0) >= 0, 1, -1)
    agrees_EXY = jnp.sign(x_EXY) == elected_XY[None]
    count_XY = jnp.maximum(jnp.sum(agrees_EXY, axis=0), 1)
    return jnp.sum(jnp.where(agrees_EXY, shared_EXY, 0), axis=0) / count_XY


@functools.partial(jax.jit, static_argnames="elect")
def merged_layers(x_LEXY: jax.Array, thin_L: Thin, share_LE: jax.Array, elect: bool) -> jax.Array:
    """`merged_layer` of each layer in turn, float32[L, X, Y]; every array of `thin_L` has L first."""
    return jax.lax.map(lambda layer: merged_layer(*layer, elect), (x_LEXY, thin_L, share_LE))
