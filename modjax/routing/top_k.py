"""Weights from the k largest scores of each token or example, and checks of their settings."""

import functools

import jax
import jax.numpy as jnp

from modjax.errors import InputError


def top_k_softmax(score_BTE: jax.Array, top_k: int, temperature: float = 1.0) -> jax.Array:
    """Softmax over the k largest scores of each token, exact zeros elsewhere, float32[B,T,E].

    Args:
      top_k: -1, or more than there are experts, keeps all.
      temperature: of the softmax, positive.
    """
    n_experts = score_BTE.shape[-1]
    if not 0 < top_k < n_experts:
        return jax.nn.softmax(score_BTE / temperature)
    top_BTk, ids_BTk = jax.lax.top_k(score_BTE, top_k)
    weights_BTk = jax.nn.softmax(top_BTk / temperature)
    return spread(weights_BTk, ids_BTk, n_experts)


def top_k_shares(score_BE: jax.Array, top_k: int) -> jax.Array:
    """The k largest scores of each row divided by their sum, else exact zeros, float32[B,E]; 1 / E if the sum is 0."""
    n_experts = score_BE.shape[1]
    if 0 < top_k < n_experts:
        top_Bk, ids_Bk = jax.lax.top_k(score_BE, top_k)
        score_BE = spread(top_Bk, ids_Bk, n_experts)
    total_B1 = score_BE.sum(axis=1, keepdims=True)
    return jnp.where(total_B1 > 0, score_BE / jnp.where(total_B1 > 0, total_B1, 1), 1 / n_experts)


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


def check_top_k(top_k: int) -> None:
    """Raises InputError unless top_k is at least 1, or -1 for all experts."""
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")


def check_temperature(temperature: float) -> None:
    """Raises InputError unless the temperature is positive."""
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: expected a positive number")


def positive_temperature(temperature: float, width: int) -> float:
    """The temperature, or sqrt(width) if it is 0 or less, the default of the reference code."""
    return temperature if temperature > 0 else width**0.5
