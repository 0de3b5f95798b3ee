"""Weights from the k largest scores of each token or example, and checks of their settings.

An expert is silent at a site and layer where its update s_e B_e^T A_e is 0. It has no direction there: its vectors in a
router are 0 and its score is -inf, so that it gets no weight.
"""

import functools

import jax
import jax.numpy as jnp

from modjax.arguments import number, refused, whole
from modjax.ops.temperature import cooled


def top_k_softmax(score_BTE: jax.Array, top_k: int, temperature: float = 1.0) -> jax.Array:
    """Softmax over the k largest scores of each token, exact zeros elsewhere, float32[B,T,E].

    Scores of -inf get exact zeros too; if all are -inf, all weights are 0.

    Args:
      top_k: -1, or more than there are experts, keeps all.
      temperature: of the softmax, positive.
    """
    n_experts = score_BTE.shape[-1]
    if not 0 < top_k < n_experts:
        return _softmax(score_BTE, temperature)
    top_BTk, ids_BTk = jax.lax.top_k(score_BTE, top_k)
    return spread(_softmax(top_BTk, temperature), ids_BTk, n_experts)


def _softmax(score, temperature):
    scored = score > -jnp.inf
    lowest = jnp.finfo(jnp.float32).min  # in place of -inf, because the softmax of -inf alone is NaN
    return jnp.where(scored, jax.nn.softmax(jnp.where(scored, cooled(score, temperature), lowest)), 0)


def without_silent(score_BTE: jax.Array, vectors_EX: jax.Array) -> jax.Array:
    """The scores, and -inf for experts whose vectors in a router, one or more each, are 0."""
    heard_E = jnp.any(vectors_EX != 0, axis=tuple(range(1, vectors_EX.ndim)))
    return jnp.where(heard_E[None, None], score_BTE, -jnp.inf)


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


def checked_top_k(top_k: int) -> int:
    """The number of experts to keep. Raises InputError unless it is at least 1, or -1 for all experts."""
    found = whole("top_k", top_k, least=-1)
    if found == 0:
        raise refused("top_k", top_k, "a positive number of experts, or -1 for all")
    return found


def checked_temperature(temperature: float) -> float:
    """The temperature. Raises InputError unless it is positive and finite."""
    return float(number("temperature", temperature, above=0))


def positive_temperature(temperature: float, width: int) -> float:
    """The temperature, or sqrt(width) if it is 0 or less, the default of the reference code."""
    return temperature if temperature > 0 else width**0.5
