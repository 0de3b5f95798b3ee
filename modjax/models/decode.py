"""Batched generation on the device: prefill of rows of prompts, then decoding with the cache in chunks of tokens.

All shapes are static and all numbers that may change from call to call are traced, so rows of one length with equally
many branches share two compiled programs, whatever the sampling settings and the number of new tokens. A chunk is one
dispatch; between chunks the host checks which texts are complete.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modjax.models.cache import Cache
from modjax.models.decoder import Adapt, Decoder
from modjax.models.sampling import Sampling, sample

CHUNK = 16  # most tokens per dispatch


class Prompts(NamedTuple):
    """Rows of prompts, as prefix trees; each branch continues the prompt that ends at its node."""

    tokens_BT: jax.Array  # int32
    positions_BT: jax.Array  # int32
    ends_BT: jax.Array  # int32, see `modjax.data.rows.Rows`
    node_BX: jax.Array  # int32, index in the row of the last token of each prompt
    keys_BX: jax.Array  # one random key per branch, so that its text does not depend on its batch


class State(NamedTuple):
    """The state of decoding between two chunks."""

    cache: Cache  # of all tokens read so far
    newest_BX: jax.Array  # int32, the last token of each branch, not yet read
    drawn: jax.Array  # int32, number of tokens sampled so far per branch
    keys_BX: jax.Array


def prefill(
    decoder: Decoder,
    prompts: Prompts,
    room: int,
    how: Sampling | None,
    *,
    adapters: Any = None,
    adapt: Adapt | None = None,
) -> tuple[jax.Array, Cache]:
    """Reads the prompts: (the first new token of each, int32[B, X], the cache, whose branches are still to be begun).

    Args:
      how: None is greedy.
      room: new tokens that the cache has room for; room + 1 tokens can be sampled, as the last one is not read.
    """
    hidden_BTD, cache = decoder.prefill(*prompts[:3], room, adapters=adapters, adapt=adapt)
    hidden_BXD = jnp.take_along_axis(hidden_BTD, prompts.node_BX[:, :, None], axis=1)
    return _draw(decoder.logits, hidden_BXD, prompts.keys_BX, 0, how), cache


def begin(cache: Cache, node_BX: jax.Array, newest_BX: jax.Array, keys_BX: jax.Array) -> State:
    """The state of branches that have one new token each, after which they go on.

    Args:
      node_BX: int32, index in its row of the token before the new one.
      newest_BX: int32, the new token of each branch.
    """
    return State(cache.branched(node_BX), newest_BX, jnp.int32(1), keys_BX)


def advance(
    decoder: Decoder,
    state: State,
    over_BX: jax.Array,
    ends_Z: jax.Array,
    steps: jax.Array,
    how: Sampling | None,
    *,
    adapters: Any = None,
    adapt: Adapt | None = None,
) -> tuple[jax.Array, State]:
    """The next `steps` tokens of each branch, int32[B, X, CHUNK], and the state after them.

    Stops early when all branches are complete. Values after the end token of a branch, or from column `steps` on, are
    undefined.

    Args:
      over_BX: bool, branches whose text is complete.
      ends_Z: int32, ids of the tokens that end a turn.
      steps: int32, at most CHUNK.
    """

    logits_of = decoder.reader()

    def going(carry):
        i, state, over_BX, _ = carry
        return (i < steps) & ~jnp.all(over_BX)

    def step(carry):
        i, state, over_BX, out_BXG = carry
        hidden_BXD, cache = decoder.decode(state.newest_BX, state.cache, adapters=adapters, adapt=adapt)
        token_BX = _draw(logits_of, hidden_BXD, state.keys_BX, state.drawn, how)
        over_BX = over_BX | jnp.any(token_BX[:, :, None] == ends_Z[None, None], axis=2)
        state = state._replace(cache=cache, newest_BX=token_BX, drawn=state.drawn + 1)
        return i + 1, state, over_BX, out_BXG.at[:, :, i].set(token_BX)

    out_BXG = jnp.zeros((*state.newest_BX.shape, CHUNK), jnp.int32)
    _, state, _, out_BXG = jax.lax.while_loop(going, step, (0, state, over_BX, out_BXG))
    return out_BXG, state


def _draw(logits_of, hidden_BXD, keys_BX, drawn, how):
    """Samples token number `drawn` of each branch, int32[B, X]."""
    hidden_bD, keys_b = hidden_BXD.reshape(-1, hidden_BXD.shape[-1]), keys_BX.reshape(-1)
    step_keys_b = jax.vmap(jax.random.fold_in, (0, None))(keys_b, drawn)
    return sample(logits_of(hidden_bD), step_keys_b, how).reshape(keys_BX.shape)
