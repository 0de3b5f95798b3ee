"""The k largest of E numbers, and weights of k experts."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp


class TopK(NamedTuple):
    """Weights of k distinct experts per token or example; all others have weight 0."""

    ids: jax.Array  # int32[..., k]
    weights: jax.Array  # float32[..., k]

    def dense(self, n_experts: int) -> jax.Array:
        """One weight per expert, float32[..., E]."""
        return spread(self.weights, self.ids, n_experts)


Weights = jax.Array | TopK


def dense(weights: Weights, n_experts: int) -> jax.Array:
    """Weights of either form as float32[..., E]."""
    return weights.dense(n_experts) if isinstance(weights, TopK) else weights


def among(ids: jax.Array, weights: Weights) -> TopK:
    """Weights of some experts, int[..., n], as weights of experts of the whole library."""
    if isinstance(weights, TopK):
        return TopK(jnp.take_along_axis(ids, weights.ids, axis=-1), weights.weights)
    return TopK(ids, weights)


def spread(values: jax.Array, ids: jax.Array, n_experts: int) -> jax.Array:
    """[..., k] values of the distinct experts int[..., k] as [..., E], with exact zeros elsewhere.

    No [..., k, E] array is formed: accelerators fuse a comparison with the sum over k; CPUs do not, but scatter fast.
    """
    compared, scattered = (functools.partial(one, n_experts=n_experts) for one in (_compared, _scattered))
    return jax.lax.platform_dependent(values, ids, cpu=scattered, default=compared)


def _compared(values, ids, n_experts):
    experts = jax.lax.broadcasted_iota(ids.dtype, (*ids.shape, n_experts), ids.ndim)
    return jnp.sum(jnp.where(ids[..., None] == experts, values[..., None], 0), axis=-2)


def _scattered(values, ids, n_experts):
    def one(value_k, ids_k):
        # With unique indices the gradient of the scatter is a gather.
        return jnp.zeros(n_experts, values.dtype).at[ids_k].set(value_k, mode="promise_in_bounds", unique_indices=True)

    return jnp.vectorize(one, signature="(k),(k)->(e)")(values, ids)
