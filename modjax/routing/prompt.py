"""Routers that weigh a whole prompt once: how their weights are found, and kept for all that follows.

Such a router reads the prompt through the base model and gives each example one weight an expert. `settle` does that
and puts a router of fixed weights in its place, so decoding scores no token and weighs as the prompt did, whatever has
been written since.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tokenize import Prompt
from modjax.data.tokenize import prompts as encode_prompts
from modjax.errors import InputError
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, left_padded
from modjax.ops.lora import LoRA, Mix
from modjax.routing.base import BaseModel, Router, named, static

Experts = tuple[dict[str, LoRA], jax.Array, Router]  # loras, scale, router; as from `Model.experts`


class PromptRows(NamedTuple):
    """A batch of prompts as the decoder reads it; other tokens of the rows do not count."""

    tokens_BT: jax.Array  # int32
    positions_BT: jax.Array  # int32
    segments_BT: jax.Array  # int32, 1 for the prompt's tokens, else 0

    @classmethod
    def whole(cls, tokens_BT: jax.Array) -> PromptRows:
        """All tokens of every row are its prompt."""
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
        return cls(jnp.asarray(tokens_BT), positions_BT, jnp.ones(tokens_BT.shape, jnp.int32))

    @classmethod
    def left_padded(cls, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> PromptRows:
        """The last lengths_B columns of each row are its prompt."""
        n_columns = tokens_BT.shape[1]
        columns_BT = np.arange(n_columns)[None] - (n_columns - lengths_B)[:, None]
        return cls(tokens_BT, np.maximum(columns_BT, 0), np.int32(columns_BT >= 0))

    @classmethod
    def right_padded(cls, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> PromptRows:
        """The first lengths_B columns of each row are its prompt."""
        columns_BT = np.broadcast_to(np.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
        return cls(tokens_BT, columns_BT, np.int32(columns_BT < lengths_B[:, None]))


class Settled(Router):
    """Weights of the examples of one batch, whatever the token."""

    weights: jax.Array = named("LBE")  # float32
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        return self.weights


class PromptRouter(Router):
    """A router that weighs prompts and no tokens. Its arrays need no layer axis: blocks never see them."""

    def weigh(self, decoder: Decoder, loras: dict[str, LoRA], scale_E: jax.Array, rows: PromptRows) -> jax.Array:
        """float32[B,E] from the prompts alone; rows without a prompt may have any finite weights."""
        raise NotImplementedError

    def __call__(self, site, x_BTI, context):
        raise InputError(f"a {type(self).__name__} router weighs prompts; modjax.routing.settle gives what it decides")


def settle(decoder: Decoder, experts: Experts | None, rows: PromptRows) -> Experts | None:
    """The experts with a router whose weights are those of these prompts, row by row, at every layer.

    Reads the prompts once more, through the base model. Other routers, and no experts, are given back as they are.
    """
    if experts is None or not isinstance(experts[2], PromptRouter):
        return experts
    loras, scale_E, router = experts
    return loras, scale_E, Settled(_weights(decoder, loras, scale_E, router, rows), router.mix)


@jax.jit
def _weights(decoder, loras, scale_E, router, rows):
    weights_BE = router.weigh(decoder, loras, scale_E, rows)
    return jnp.broadcast_to(weights_BE[None], (decoder.config.L, *weights_BE.shape))


def encoded(model: BaseModel, prompts: Sequence[Prompt | np.ndarray], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n]: arrays as they are, texts and conversations as `Model.generate` reads them.

    Raises InputError for texts where the model has no tokenizer, and for a prompt that is empty or exceeds the context.
    """
    if model.tokenizer is None and not all(isinstance(prompt, np.ndarray) for prompt in prompts):
        raise InputError(f"{model.name}: the checkpoint has no tokenizer; expected prompts as arrays of token ids")
    prompts = encode_prompts(model.tokenizer, prompts, system)
    if not prompts:
        raise InputError("no prompts; expected at least one")
    for i, tokens in enumerate(prompts):
        if not 0 < len(tokens) <= model.config.context:
            raise InputError(f"prompt {i} has {len(tokens)} tokens; expected 1 to {model.config.context}, the context")
    return prompts


def batches(prompts: Sequence[np.ndarray], batch: int) -> Iterator[tuple[list[int], PromptRows]]:
    """(indices, rows) of prompts of similar length; rows behind the last index have no prompt."""
    rows = min(batch, bucket(len(prompts), 1))
    for ids in batched_by_length([len(tokens) for tokens in prompts], rows):
        columns = bucket(max(len(prompts[i]) for i in ids))
        yield ids, PromptRows.left_padded(*left_padded([prompts[i] for i in ids], rows, columns))
