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
from modjax.ops.top_k import TopK
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, Router, named, static
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

    The base model reads each prompt once for it, `batch` at a time. Other routers and their choices are unchanged.
    """
    if not (examples and bound and isinstance(bound.router, PromptRouter) and bound.router.many_alike):
        return bound, choices
    prompts = [one.tokens[: one.n_prompt] for one in examples]
    places: dict[bytes, int] = {}  # of weights in the table
    distinct, place_of = [], {}
    for prompt, own in _weights(decoder, bound, list({one.tobytes(): one for one in prompts}.values()), batch):
        content = b"".join(part.tobytes() for part in own)
        if content not in places:
            places[content] = len(places)
            distinct.append(own)
        place_of[prompt] = places[content]
    spare = [distinct[0]] * (bucket(len(distinct), 1) - len(distinct))  # so that there are few different shapes
    weights_LC, *ids = (jnp.asarray(np.stack(part, axis=1)) for part in zip(*distinct, *spare, strict=True))
    table = Table(weights_LC, bound.router.mix, *ids)
    return bound._replace(router=table), [place_of[one.tobytes()] for one in prompts]


def _weights(decoder, bound, prompts, batch):
    """Yields the bytes of each prompt with its weights, ([L,E],), or its weights and experts, ([L,k], [L,k])."""
    most = bound.router.at_once(bound.loras)
    for own, rows in batches(prompts, min(batch, most or batch), decoder.row_shards):
        router = bound.router.settled(decoder, bound.loras, rows).router
        parts = gather((router.weights,) if router.ids is None else (router.weights, router.ids))
        for b, i in enumerate(own):
            yield prompts[i].tobytes(), tuple(np.asarray(part[:, b]) for part in parts)
