"""Batched generation on the device: prefill of left-padded prompts, then decoding with the cache in chunks of tokens.

All shapes are static and all numbers that may change from call to call are traced, so prompts of one padded length
share two compiled programs, whatever the sampling settings and the number of new tokens. A chunk is one dispatch;
between chunks the host checks which texts are complete.
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
    """A batch of prompts, padded on the left."""

    tokens_BT: jax.Array  # int32
    lengths_B: jax.Array  # int32, tokens of each prompt, at the end of its row; 0 for rows that only fill the batch
    keys_B: jax.Array  # one random key per row, so that a row's text does not depend on its batch


class State(NamedTuple):
    """The state of decoding between two chunks."""

    cache: Cache  # of all tokens read so far
    newest_B: jax.Array  # int32, last sampled token of each row, not yet read
    drawn: jax.Array  # int32, number of tokens sampled so far per row
    lengths_B: jax.Array
    keys_B: jax.Array


def prefill(
    decoder: Decoder,
    prompts: Prompts,
    room: int,
    how: Sampling | None,
    *,
    adapters: Any = None,
    adapt: Adapt | None = None,
) -> State:
    """Reads the prompts and samples the first token of each row.

    Args:
      how: None is greedy.
      room: columns of the cache after the prompts; room + 1 tokens can be sampled, as the last one is not read.
    """
    n_rows, n_columns = prompts.tokens_BT.shape
    cache = Cache.empty(decoder.config, n_rows, n_columns + room, decoder.embed[...].dtype)
    columns_BT = jnp.arange(n_columns)[None] - (n_columns - prompts.lengths_B)[:, None]
    positions_BT, segments_BT = jnp.maximum(columns_BT, 0), (columns_BT >= 0).astype(jnp.int32)
    hidden_BTD, cache = decoder(
        prompts.tokens_BT, positions_BT, segments_BT, cache=cache, adapters=adapters, adapt=adapt
    )
    first_B = _draw(decoder, hidden_BTD[:, -1], prompts.keys_B, 0, how)
    return State(cache, first_B, jnp.int32(1), prompts.lengths_B, prompts.keys_B)


def advance(
    decoder: Decoder,
    state: State,
    over_B: jax.Array,
    ends_Z: jax.Array,
    steps: jax.Array,
    how: Sampling | None,
    *,
    adapters: Any = None,
    adapt: Adapt | None = None,
) -> tuple[jax.Array, State]:
    """The next `steps` tokens of each row, int32[B, CHUNK], and the state after them.

    Stops early when all rows are complete. Values after the end token of a row, or from column `steps` on, are
    undefined.

    Args:
      over_B: bool, rows whose text is complete.
      ends_Z: int32, ids of the tokens that end a turn.
      steps: int32, at most CHUNK.
    """

    def going(carry):
        i, state, over_B, _ = carry
        return (i < steps) & ~jnp.all(over_B)

    def step(carry):
        i, state, over_B, out_BG = carry
        position_B = state.lengths_B + state.drawn - 1
        hidden_BTD, cache = decoder(
            state.newest_B[:, None], position_B[:, None], cache=state.cache, adapters=adapters, adapt=adapt
        )
        token_B = _draw(decoder, hidden_BTD[:, 0], state.keys_B, state.drawn, how)
        over_B = over_B | jnp.any(token_B[:, None] == ends_Z[None], axis=1)
        state = state._replace(cache=cache, newest_B=token_B, drawn=state.drawn + 1)
        return i + 1, state, over_B, out_BG.at[:, i].set(token_B)

    out_BG = jnp.zeros((len(state.newest_B), CHUNK), jnp.int32)
    _, state, _, out_BG = jax.lax.while_loop(going, step, (0, state, over_B, out_BG))
    return out_BG, state


def _draw(decoder, hidden_BD, keys_B, drawn, how):
    """Samples token number `drawn` of each row, int32[B]."""
    step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, drawn)
    return sample(decoder.logits(hidden_BD), step_keys_B, how)
