"""Embeddings of prompts: the mean of the base model's last hidden states."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.messages import Prompt
from modjax.data.tasks import Tasks, checked_tasks
from modjax.models.decoder import Decoder
from modjax.parallel.distributed import gather
from modjax.routing.base import BaseModel
from modjax.routing.examples import first_of
from modjax.routing.prompt import PromptRows, batches, encoded


def embed(
    model: BaseModel, prompts: Sequence[Prompt | np.ndarray], system: str | None = None, batch: int = 16
) -> np.ndarray:
    """The mean of the base model's last hidden states over each prompt's tokens, float64[n, D]; see `encoded`."""
    return _read(model, prompts, system, batch, embedding)


def _read(model, prompts, system, batch, describe) -> np.ndarray:
    """What `describe` gives for each prompt, float64[n, X]."""
    tokens, found = encoded(model, prompts, system), {}
    for ids, rows in batches(tokens, batch, model.params.row_shards):
        found |= dict(zip(ids, gather(_described(model.params, rows, describe)), strict=False))  # the rest is padding
    return np.float64([found[i] for i in range(len(tokens))])


def embedding(decoder: Decoder, rows: PromptRows) -> jax.Array:
    """The mean of the last hidden states over each row's prompt, float32[B,D]; 0 for a row without a prompt."""
    return rows.mean(decoder(*rows).astype(jnp.float32))


@functools.partial(jax.jit, static_argnums=2)
def _described(decoder, rows, describe):
    return describe(decoder, rows)


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
    describe: Callable[[Decoder, PromptRows], jax.Array] = embedding,
) -> dict[str, np.ndarray]:
    """{task: float64[n,X]}, the embeddings of which `task_embeddings` gives the means, or another description.

    describe: a function that gives float32[B,X] for the prompts of a batch.
    """
    tasks = checked_tasks(tasks)
    sources = {name: [example.source for example in first_of(tasks, name, examples, split)] for name in tasks}
    found_nX = _read(model, [source for own in sources.values() for source in own], system, batch, describe)
    ends = np.cumsum([len(own) for own in sources.values()])[:-1]
    return dict(zip(sources, np.split(found_nX, ends), strict=True))
