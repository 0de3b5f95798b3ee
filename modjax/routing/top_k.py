"""Weights from the k largest scores of each token or example, and checks of their settings.

An expert is silent at a site and layer where its update s_e B_e^T A_e is 0. It has no direction there: its vectors in a
router are 0 and its score is -inf, so that it gets no weight. The other experts are heard.
"""

import jax
import jax.numpy as jnp

from modjax.arguments import number, refused, whole
from modjax.ops.temperature import cooled
from modjax.ops.top_k import TopK, Weights, spread


def top_k_softmax(score_BTE: jax.Array, top_k: int, temperature: float = 1.0) -> Weights:
    """Softmax over the k largest scores of each token: TopK of [B,T,k], or float32[B,T,E] if all experts are kept.

    Scores of -inf get exact zeros; if all are -inf, all weights are 0.

    Args:
      top_k: -1, or more than there are experts, keeps all.
      temperature: of the softmax, positive.
    """
    n_experts = score_BTE.shape[-1]
    if not 0 < top_k < n_experts:
        return _softmax(score_BTE, temperature)
    top_BTk, ids_BTk = jax.lax.top_k(score_BTE, top_k)
    return TopK(ids_BTk, _softmax(top_BTk, temperature))


def _softmax(score, temperature):
    scored = score > -jnp.inf
    lowest = jnp.finfo(jnp.float32).min  # in place of -inf, because the softmax of -inf alone is NaN
    return jnp.where(scored, jax.nn.softmax(jnp.where(scored, cooled(score, temperature), lowest)), 0)


def heard(vectors_EX: jax.Array) -> jax.Array:
    """Whether an expert is heard, by its vector in a router, bool[...,E] from [...,E,X]."""
    return jnp.any(vectors_EX != 0, axis=-1)


def without_silent(score_BTE: jax.Array, heard_E: jax.Array) -> jax.Array:
    """The scores, and -inf for experts that are silent; heard_E: bool[E], or bool[B,1,E] for each row."""
    return jnp.where(jnp.broadcast_to(heard_E, score_BTE.shape), score_BTE, -jnp.inf)


def top_k_shares(score_BE: jax.Array, top_k: int) -> jax.Array:
    """The k largest scores of each row divided by their sum, else exact zeros, float32[B,E]; 1 / E if the sum is 0."""
    n_experts = score_BE.shape[1]
    if 0 < top_k < n_experts:
        top_Bk, ids_Bk = jax.lax.top_k(score_BE, top_k)
        score_BE = spread(top_Bk, ids_Bk, n_experts)
    total_B1 = score_BE.sum(axis=1, keepdims=True)
    return jnp.where(total_B1 > 0, score_BE / jnp.where(total_B1 > 0, total_B1, 1), 1 / n_experts)


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
