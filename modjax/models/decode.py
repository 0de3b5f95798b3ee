"""Batched generation on the device: prefill over left-padded prompts, then chunks of tokens from the cache.

Every shape is static and every number that may differ from call to call is traced, so prompts of one padded length
share two compiled programs, whatever the sampling settings and the number of new tokens. Between chunks the host
looks at the text: a chunk costs one dispatch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modjax.models.cache import Cache
from modjax.models.decoder import Adapt, Decoder
from modjax.models.sampling import Sampling, sample

CHUNK = 16  # the most tokens between two looks of the host


class Prompts(NamedTuple):
    """A batch of prompts, padded on the left."""

    tokens_BT: jax.Array  # int32
    lengths_B: jax.Array  # int32, how many of a row's last columns are its prompt; 0 is a row that fills the batch
    keys_B: jax.Array  # each row draws from its own, so its text does not depend on its batch


class State(NamedTuple):
    """What decoding goes on from."""

    cache: Cache  # everything read so far
    newest_B: jax.Array  # int32, drawn but not yet read
    drawn: jax.Array  # int32, how many tokens each row has drawn
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
    """Reads the prompts and draws each row's first token.

    Args:
      how: None is greedy.
      room: columns of the cache behind the prompts; as many tokens, and the one drawn last, can follow.
    """
    n_rows, n_columns = prompts.tokens_BT.shape
    cache = Cache.empty(decoder.config, n_rows, n_columns + room, decoder.embed[...].dtype)
    columns_BT = jnp.arange(n_columns)[None] - (n_columns - prompts.lengths_B)[:, None]
    places = (jnp.maximum(columns_BT, 0), (columns_BT >= 0).astype(jnp.int32))
    hidden_BTD, cache = decoder(prompts.tokens_BT, *places, cache=cache, adapters=adapters, adapt=adapt)
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
    """The next `steps` tokens of each row, int32[B, CHUNK], and the state behind them.

    Stops early once all rows are over. What stands behind a row's end, or behind `steps`, means nothing.

    Args:
      over_B: bool, rows whose text is complete.
      ends_Z: int32, the tokens that end a turn.
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
    """Draw number `drawn` of each row."""
    step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, drawn)
    return sample(decoder.logits(hidden_BD), step_keys_B, how)
