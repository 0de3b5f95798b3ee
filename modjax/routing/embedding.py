"""Embeddings of prompts: the mean of the base model's last hidden states."""

from collections.abc import Sequence

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
    tokens = encoded(model, prompts, system)
    found_nD = np.zeros((len(tokens), model.config.D))
    for ids, rows in batches(tokens, batch, model.params.row_shards):
        found_nD[ids] = gather(_embed(model.params, rows))[: len(ids)]
    return found_nD


def embedding(decoder: Decoder, rows: PromptRows) -> jax.Array:
    """The mean of the last hidden states over each row's prompt, float32[B,D]; 0 for a row without a prompt."""
    hidden_BTD = decoder(*rows).astype(jnp.float32)
    inside_BT1 = rows.inside_BT[..., None]
    return jnp.where(inside_BT1, hidden_BTD, 0).sum(axis=1) / jnp.maximum(inside_BT1.sum(axis=1), 1)


_embed = jax.jit(embedding)


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
    model: BaseModel, tasks: Tasks, examples: int, split: str, system: str | None, batch: int
) -> dict[str, np.ndarray]:
    """{task: float64[n,D]}, the embeddings of which `task_embeddings` gives the means."""
    tasks = checked_tasks(tasks)
    sources = {name: [example.source for example in first_of(tasks, name, examples, split)] for name in tasks}
    embedded_nD = embed(model, [source for own in sources.values() for source in own], system, batch)
    ends = np.cumsum([len(own) for own in sources.values()])[:-1]
    return dict(zip(sources, np.split(embedded_nD, ends), strict=True))
