"""Weights of prompts that are known before rows are made, so that examples of different prompts can share one.

A router of whole prompts that takes one expert gives many prompts the same weights. Each of them becomes a choice, as
the oracle's are, and rows are made of the examples of one choice.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tokenize import Encoded
from modjax.models.decoder import Decoder
from modjax.models.padding import bucket
from modjax.ops.lora import Mix
from modjax.ops.top_k import TopK, Weights
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, Router, named, static
from modjax.routing.embedding import EmbeddingRouter, read
from modjax.routing.prompt import PromptRouter, batches

Choices = Sequence[int | None] | None  # of each example; None where the router needs none


class Table(Router):
    """The weights of C choices, the same in all layers and for all tokens of an example."""

    weights: jax.Array = named("LC")  # float32[L,C,E], or [L,C,k] of the experts `ids`
    mix: Mix = static("outputs")
    ids: jax.Array | None = None  # int32[L,C,k]

    def __call__(self, site, x_BTI, context):
        weights = self.weights[context.choice_B]
        return weights if self.ids is None else TopK(self.ids[context.choice_B], weights)


def tabled(
    decoder: Decoder, bound: Bound | None, examples: Sequence[Encoded], choices: Choices, batch: int
) -> tuple[Bound | None, Choices]:
    """The experts with a table in place of a router of prompts that gives many the same weights, and its choices.

    The base model reads each prompt once for it, `batch` at a time, or in rows of prefix trees where the router knows
    prompts by what the base model says of them. Other routers and their choices are unchanged.
    """
    if not (examples and bound and isinstance(bound.router, PromptRouter) and bound.router.many_alike):
        return bound, choices
    prompts = [one.tokens[: one.n_prompt] for one in examples]
    different = list({one.tobytes(): one for one in prompts}.values())
    places: dict[bytes, int] = {}  # of weights in the table
    distinct, place_of = [], {}
    for prompt, own in zip(different, _weights(decoder, bound, different, batch), strict=True):
        content = b"".join(part.tobytes() for part in own)
        if content not in places:
            places[content] = len(places)
            distinct.append(own)
        place_of[prompt.tobytes()] = places[content]
    spare = [distinct[0]] * (bucket(len(distinct), 1) - len(distinct))  # so that there are few different shapes
    weights_LC, *ids = (_in_all_layers(decoder, part) for part in zip(*distinct, *spare, strict=True))
    table = Table(weights_LC, bound.router.mix, *ids)
    return bound._replace(router=table), [place_of[one.tobytes()] for one in prompts]


def _in_all_layers(decoder, parts) -> jax.Array:
    return jnp.asarray(np.broadcast_to(np.stack(parts)[None], (decoder.config.L, len(parts), *parts[0].shape)))


def _weights(decoder, bound, prompts, batch) -> list[tuple[np.ndarray, ...]]:
    """The weights of each prompt, ([E],), or its weights and experts, ([k], [k])."""
    router = bound.router
    if isinstance(router, EmbeddingRouter):
        described_nX = read(decoder, prompts, batch, router.describe)
        filler = [(0, bucket(len(prompts), 1) - len(prompts)), (0, 0)]
        return _parts(_of_described(router, np.pad(described_nX, filler)))[: len(prompts)]
    most = router.at_once(bound.loras)
    found = {}
    for own, rows in batches(prompts, min(batch, most or batch), decoder.row_shards):
        found |= dict(zip(own, _parts(_of_rows(decoder, bound, rows)), strict=False))
    return [found[i] for i in range(len(prompts))]


def _parts(weights: Weights) -> list[tuple[np.ndarray, ...]]:
    found = gather((weights.weights, weights.ids) if isinstance(weights, TopK) else (weights,))
    return list(zip(*map(np.asarray, found), strict=True))


@jax.jit
def _of_described(router, described_nX):
    return router.weigh_described(described_nX)


@jax.jit
def _of_rows(decoder, bound, rows):
    return bound.router.weigh(decoder, bound.loras, rows)
