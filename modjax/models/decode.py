"""Batched generation: one prefill over left-padded prompts, then a token a step from the cache."""

from typing import Any

import jax
import jax.numpy as jnp

from modjax.models.cache import Cache
from modjax.models.decoder import Adapt, Decoder
from modjax.models.sampling import sample


def decode(
    decoder: Decoder,
    tokens_BT: jax.Array,
    lengths_B: jax.Array,
    keys_B: jax.Array,
    *,
    end: int,
    max_new_tokens: int,
    temperature: float = 0.0,
    adapters: Any = None,
    adapt: Adapt | None = None,
) -> jax.Array:
    """The continuation of each prompt, int32[B, max_new_tokens]; everything from the first `end` on is `end`.

    Every shape is static, so prompts padded to one length share one compiled program; it stops as soon as
    all rows have ended.

    Args:
      tokens_BT: prompts padded on the left.
      lengths_B: int32, how many of a row's last columns are its prompt; 0 is a row that fills the batch, over at once.
      keys_B: key[B], for temperature > 0; each row draws from its own, so its text does not depend on its batch.
      end: the token that ends a turn.
    """
    n_rows, n_prompt = tokens_BT.shape
    cache = Cache.empty(decoder.config, n_rows, n_prompt + max_new_tokens, decoder.embed[...].dtype)
    columns_BT = jnp.arange(n_prompt)[None] - (n_prompt - lengths_B)[:, None]
    segments_BT = (columns_BT >= 0).astype(jnp.int32)
    hook = dict(adapters=adapters, adapt=adapt)

    def pick(hidden_BD, i):
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, i)
        return sample(decoder.logits(hidden_BD), step_keys_B, temperature)

    def going(carry):
        i, _, ended_B, _, _ = carry
        return (i < max_new_tokens) & ~jnp.all(ended_B)

    def step(carry):
        i, token_B, ended_B, cache, out_BG = carry
        token_B = jnp.where(ended_B, end, token_B)
        out_BG = out_BG.at[:, i].set(token_B)
        hidden_BTD, cache = decoder(token_B[:, None], (lengths_B + i)[:, None], cache=cache, **hook)
        return i + 1, pick(hidden_BTD[:, 0], i + 1), ended_B | (token_B == end), cache, out_BG

    hidden_BTD, cache = decoder(tokens_BT, jnp.maximum(columns_BT, 0), segments_BT, cache=cache, **hook)
    out_BG = jnp.full((n_rows, max_new_tokens), end, jnp.int32)
    start = (0, pick(hidden_BTD[:, -1], 0), lengths_B == 0, cache, out_BG)
    return jax.lax.while_loop(going, step, start)[-1]
