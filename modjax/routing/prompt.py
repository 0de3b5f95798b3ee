"""Routers with one set of weights per prompt, used for the prompt and for every token of the answer.

Such a router reads the prompt with the base model and gives each example one weight per expert. `settle` computes these
weights and replaces the router by one of fixed weights, so that decoding computes no scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import instance, optional, text
from modjax.data import inputs
from modjax.data.messages import Prompt
from modjax.errors import InputError
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, fitting, right_padded
from modjax.ops.lora import Loras, Mix
from modjax.ops.top_k import TopK, Weights
from modjax.routing.base import BaseModel, Bound, Context, Router, hook, named, static


class PromptRows(NamedTuple):
    """A batch of prompts in the decoder's form, one per row, followed by padding."""

    tokens_BT: jax.Array  # int32
    positions_BT: jax.Array  # int32
    ends_BT: jax.Array  # int32, T for the prompt's tokens, else 0

    @property
    def inside_BT(self) -> jax.Array:
        """bool, whether a token belongs to the prompt."""
        return self.ends_BT > 0

    @property
    def lengths_B(self) -> jax.Array:
        """int32, the number of tokens of each prompt."""
        return self.inside_BT.sum(axis=1)

    def last(self, x_BTI: jax.Array) -> jax.Array:
        """The activations at the last token of each prompt, [B,I]."""
        last_B = jnp.maximum(self.lengths_B - 1, 0)
        return jnp.take_along_axis(x_BTI, last_B[:, None, None], axis=1)[:, 0]

    def mean(self, x_BTI: jax.Array) -> jax.Array:
        """The mean of the activations over the tokens of each prompt, [B,I]; 0 for a row without a prompt."""
        inside_BT1 = self.inside_BT[..., None]
        return jnp.where(inside_BT1, x_BTI, 0).sum(axis=1) / jnp.maximum(inside_BT1.sum(axis=1), 1)

    @classmethod
    def whole(cls, tokens_BT: jax.Array) -> PromptRows:
        """Each row is one prompt, without padding."""
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1])[None], tokens_BT.shape)
        return cls(jnp.asarray(tokens_BT), positions_BT, jnp.full(tokens_BT.shape, tokens_BT.shape[1]))

    @classmethod
    def right_padded(cls, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> PromptRows:
        """The prompt of each row is in its first lengths_B columns."""
        T = tokens_BT.shape[1]
        columns_BT = np.broadcast_to(np.arange(T, dtype=np.int32)[None], tokens_BT.shape)
        return cls(tokens_BT, columns_BT, np.where(columns_BT < lengths_B[:, None], np.int32(T), np.int32(0)))

    @classmethod
    def one_each(cls, prompts: Sequence[np.ndarray], rows: int, columns: int) -> PromptRows:
        """One prompt per row; the last rows may have none."""
        return cls.right_padded(*right_padded(prompts, rows, columns))


class Settled(Router):
    """Fixed weights per example of one batch, the same for all tokens of an example."""

    weights: jax.Array = named("LB")  # float32[L,B,E], or [L,B,k] of the experts `ids`
    mix: Mix = static("outputs")
    ids: jax.Array | None = None  # int32[L,B,k]

    def __call__(self, site, x_BTI, context):
        return self.weights if self.ids is None else TopK(self.ids, self.weights)


class PromptRouter(Router):
    """A router that reads prompts, not tokens. Its arrays need no layer axis: they are never passed to blocks."""

    def settled(self, decoder: Decoder, loras: Loras, rows: PromptRows) -> Bound:
        """The experts with a router of tokens, for these prompts: by default one of the fixed weights of `weigh`."""
        weights = _weights(decoder, Bound(loras, self), rows)
        ids, weights = weights if isinstance(weights, TopK) else (None, weights)
        return Bound(loras, Settled(weights, self.mix, ids))

    @property
    def many_alike(self) -> bool:
        """Whether many prompts have the very same weights, as if each has one expert: by default where top_k is 1."""
        return getattr(self, "top_k", None) == 1

    def at_once(self, loras: Loras) -> int | None:
        """The most prompts that one batch may have; None is any number."""
        return None

    def weigh(self, decoder: Decoder, loras: Loras, rows: PromptRows) -> Weights:
        """Weights per prompt, float32[B,E] or TopK of [B,k]; for rows without a prompt they may be anything finite."""
        raise NotImplementedError

    def __call__(self, site, x_BTI, context):
        raise InputError(f"a {type(self).__name__} router weighs prompts, not tokens; call modjax.routing.settle first")


def routed(
    decoder: Decoder,
    bound: Bound | None,
    rows: PromptRows | None,
    context: Context = Context(),  # noqa: B008, frozen
) -> dict[str, Any]:
    """The decoder's keyword arguments for a batch: `settle` on its prompts, then `hook`."""
    return hook(settle(decoder, bound, rows), context)


def settle(decoder: Decoder, bound: Bound | None, rows: PromptRows | None) -> Bound | None:
    """The experts with a router that needs no prompts: for most routers one of fixed weights per row, in all layers.

    The base model reads the prompts once for this. Routers of tokens, and None, are returned unchanged; for them rows
    may be None.
    """
    if bound is None or not isinstance(bound.router, PromptRouter):
        return bound
    return bound.router.settled(decoder, bound.loras, rows)


@jax.jit
def _weights(decoder, bound, rows):
    weights = bound.router.weigh(decoder, bound.loras, rows)
    return jax.tree.map(lambda own_B: jnp.broadcast_to(own_B[None], (decoder.config.L, *own_B.shape)), weights)


def encoded(model: BaseModel, prompts: Sequence[Prompt | np.ndarray], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n]: arrays unchanged, texts and conversations as in `Model.generate`.

    Raises InputError as `modjax.data.inputs.prompts`, and for no prompts.
    """
    found = inputs.prompts(instance("model", model, BaseModel), prompts, optional(text)("system", system))
    if not found:
        raise InputError("no prompts; expected at least one")
    return found


def batches(prompts: Sequence[np.ndarray], batch: int, shards: int = 1) -> Iterator[tuple[list[int], PromptRows]]:
    """(indices, rows) of batches of prompts with similar lengths; rows beyond the number of indices are padding.

    shards: the devices that share the rows of a batch; see `Decoder.row_shards`.
    """
    rows = fitting(batch, len(prompts), shards)
    for ids in batched_by_length([len(tokens) for tokens in prompts], rows):
        columns = bucket(max(len(prompts[i]) for i in ids))
        yield ids, PromptRows.one_each([prompts[i] for i in ids], rows, columns)
