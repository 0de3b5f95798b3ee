"""Embeddings of prompts: the mean of the base model's last hidden states.

Many prompts are read in rows of prefix trees, so that the instruction of a task is read once for many of its prompts.
"""

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from modjax import digest
from modjax.arguments import whole
from modjax.data.messages import Prompt
from modjax.data.tasks import Tasks, checked_tasks
from modjax.data.tokenize import Encoded
from modjax.models.decoder import Decoder
from modjax.ops.top_k import Weights
from modjax.parallel.distributed import gather
from modjax.routing.base import BaseModel
from modjax.routing.batches import packed
from modjax.routing.examples import first_of
from modjax.routing.prompt import PromptRouter, PromptRows, encoded


class PromptTrees(NamedTuple):
    """Prompts in rows of prefix trees, M in a row; the counterpart of `modjax.routing.prompt.PromptRows`."""

    tokens_BT: jax.Array  # int32
    positions_BT: jax.Array  # int32
    ends_BT: jax.Array  # int32, index just after the token's subtree; 0 for padding
    last_BM: jax.Array  # int32, the place of the last token of each prompt; 0 where a row has fewer

    def last(self, x_BTI: jax.Array) -> jax.Array:
        """The activations at the last token of each prompt, [B,M,I]."""
        return jnp.take_along_axis(x_BTI, self.last_BM[..., None], axis=1)

    def mean(self, x_BTI: jax.Array) -> jax.Array:
        """The mean of the activations over the tokens of each prompt, [B,M,I]."""
        place_11T, last_BM1 = jnp.arange(x_BTI.shape[1])[None, None], self.last_BM[..., None]
        own_BMT = (place_11T <= last_BM1) & (last_BM1 < self.ends_BT[:, None])
        sum_BMI = jnp.einsum("bmt,bti->bmi", own_BMT.astype(x_BTI.dtype), x_BTI, precision=Precision.HIGHEST)
        return sum_BMI / jnp.maximum(own_BMT.sum(axis=-1, keepdims=True), 1)


Prompts = PromptRows | PromptTrees
Describe = Callable[[Decoder, Prompts], jax.Array]  # gives float32[B,X], or [B,M,X] of trees

KEPT = 4  # results of `read` per decoder: several routers are made of the same prompts, and weigh the same ones

_known: weakref.WeakKeyDictionary[Decoder, dict[tuple, np.ndarray]] = weakref.WeakKeyDictionary()


def embed(
    model: BaseModel, prompts: Sequence[Prompt | np.ndarray], system: str | None = None, batch: int = 16
) -> np.ndarray:
    """The mean of the base model's last hidden states over each prompt's tokens, float64[n, D]; see `encoded`."""
    return _of_texts(model, prompts, system, batch, embedding)


def _of_texts(model, prompts, system, batch, describe) -> np.ndarray:
    batch, tokens = whole("batch", batch, least=1), encoded(model, prompts, system)
    return np.float64(read(model.params, tokens, batch, describe))


def read(decoder: Decoder, prompts: Sequence[np.ndarray], batch: int, describe: Describe) -> np.ndarray:
    """What `describe` gives for each prompt, float32[n, X]. What was read last is kept, and not read again."""
    known, key = _known.setdefault(decoder, {}), (describe, batch, digest.of_arrays(prompts))
    known[key] = known.pop(key) if key in known else _read_in_trees(decoder, prompts, batch, describe)
    if len(known) > KEPT:
        del known[next(iter(known))]
    return known[key].copy()


def _read_in_trees(decoder, prompts, batch, describe) -> np.ndarray:
    # A target, which is not read, at the end of each prompt: the row then lists the place before it.
    examples = [Encoded(np.append(tokens, 0), len(tokens)) for tokens in prompts]
    found = {}
    for own in packed(examples, None, None, batch, decoder.config.original, decoder.row_shards):
        trees = PromptTrees(own.rows.tokens, own.rows.positions, own.rows.ends, own.rows.at)
        found_BMX = gather(_describe(decoder, trees, describe))
        found |= {example: found_BMX[row, targets.start] for example, row, targets in own.members}
    return np.float32([found[i] for i in range(len(examples))])


def embedding(decoder: Decoder, prompts: Prompts) -> jax.Array:
    """The mean of the last hidden states over each prompt's tokens, float32[...,D]; 0 for a row without a prompt."""
    return prompts.mean(hidden_states(decoder, prompts))


def hidden_states(decoder: Decoder, prompts: Prompts) -> jax.Array:
    """The last hidden states of all tokens, float32[B,T,D]."""
    return decoder(prompts.tokens_BT, prompts.positions_BT, prompts.ends_BT).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=2)
def _describe(decoder, prompts, describe):
    return describe(decoder, prompts)


class EmbeddingRouter(PromptRouter):
    """A router of prompts that knows of a prompt what the base model alone says, as its embedding."""

    describe = staticmethod(embedding)

    def weigh(self, decoder, loras, rows):
        return self.weigh_described(self.describe(decoder, rows))

    def weigh_described(self, described_BX: jax.Array) -> Weights:
        """As `weigh`, of what `describe` gives for each prompt."""
        raise NotImplementedError


def task_embeddings(
    model: BaseModel,
    tasks: Tasks,
    examples: int = 32,
    split: str = "train",
    system: str | None = None,
    batch: int = 16,
) -> dict[str, np.ndarray]:
    """{task: float64[D]}, the mean embedding of the prompts of each task's first examples of a split.

    Raises InputError for a task without examples in the split.
    """
    found = example_embeddings(model, tasks, examples, split, system, batch)
    return {name: own_nD.mean(axis=0) for name, own_nD in found.items()}


def example_embeddings(
    model: BaseModel,
    tasks: Tasks,
    examples: int,
    split: str,
    system: str | None,
    batch: int,
    describe: Describe = embedding,
) -> dict[str, np.ndarray]:
    """{task: float64[n,X]}, the embeddings of which `task_embeddings` gives the means, or another description."""
    tasks = checked_tasks(tasks)
    sources = {name: [example.source for example in first_of(tasks, name, examples, split)] for name in tasks}
    found_nX = _of_texts(model, [source for own in sources.values() for source in own], system, batch, describe)
    ends = np.cumsum([len(own) for own in sources.values()])[:-1]
    return dict(zip(sources, np.split(found_nX, ends), strict=True))
