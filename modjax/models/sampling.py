"""Choice of the next token from logits: greedy, or random with temperature, top-k and top-p."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from modjax.arguments import number, whole
from modjax.ops.temperature import cooled

ALL = 2**31 - 1  # a top_k that keeps every token


class Sampling(NamedTuple):
    """Settings of random sampling. All three are traced, so that other values do not recompile the program."""

    temperature: float
    top_k: int = ALL  # number of tokens kept
    top_p: float = 1.0  # total probability kept


def sampling(temperature: float, top_k: int | None = None, top_p: float | None = None) -> Sampling | None:
    """The settings of one call, checked; None, which means greedy, for temperature 0 and for top_k 1.

    Raises InputError for temperature < 0, top_k < 1 and top_p outside (0, 1].
    """
    temperature = number("temperature", temperature, least=0)
    top_k = min(ALL if top_k is None else whole("top_k", top_k, least=1), ALL)
    top_p = 1.0 if top_p is None else number("top_p", top_p, above=0, most=1)
    if temperature == 0 or top_k == 1:
        return None
    return Sampling(float(temperature), top_k, float(top_p))


def sample(logits_BV: jax.Array, keys_B: jax.Array, how: Sampling | None = None) -> jax.Array:
    """The most likely token if `how` is None, else a random one from softmax(filtered logits).

    logits_BV: float32[B, V]; keys_B: key[B], one per row; result: int32[B].
    """
    if how is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys_B, filtered(logits_BV, how)).astype(jnp.int32)


def filtered(logits_BV: jax.Array, how: Sampling) -> jax.Array:
    """logits / temperature, with -inf for the tokens that are filtered out, float32[B, V]; see `cooled`.

    The top_k most likely tokens are kept, then the fewest of these whose probabilities sum to top_p (nucleus sampling,
    arXiv 1904.09751, section 3.1), but at least one. Order and meaning are those of transformers' logits processors.
    Tokens exactly as likely as the last one kept are kept too.
    """
    scaled_BV = cooled(logits_BV, how.temperature)
    narrowed = (how.top_k < logits_BV.shape[-1]) | (how.top_p < 1)
    return jax.lax.cond(narrowed, _narrowed, lambda scaled_BV, *_: scaled_BV, scaled_BV, how.top_k, how.top_p)


def _narrowed(scaled_BV, top_k, top_p):
    n_tokens = scaled_BV.shape[-1]
    rising_BV = jnp.sort(scaled_BV, axis=-1)
    least_B1 = jax.lax.dynamic_slice_in_dim(rising_BV, n_tokens - jnp.clip(top_k, 1, n_tokens), 1, axis=1)
    rising_BV = jnp.where(rising_BV < least_B1, -jnp.inf, rising_BV)
    # Summed from the least likely token up: tokens within the first 1 - top_p are filtered out.
    below_BV = jnp.cumsum(jax.nn.softmax(rising_BV, axis=-1), axis=-1)
    outside_BV = (below_BV <= 1 - top_p).at[:, -1].set(False)
    nucleus_B1 = jnp.where(outside_BV, jnp.inf, rising_BV).min(axis=-1, keepdims=True)
    return jnp.where(scaled_BV < jnp.maximum(least_B1, nucleus_B1), -jnp.inf, scaled_BV)
