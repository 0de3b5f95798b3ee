"""Embeddings of prompts: the mean of the base model's last hidden states."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.models.decoder import Decoder
from modjax.routing.base import BaseModel
from modjax.routing.prompt import PromptRows, batches, encoded


def embed(model: BaseModel, prompts, system: str | None = None, batch: int = 16) -> np.ndarray:
    """The mean of the base model's last hidden states over each prompt's tokens, float64[n, D]."""
    prompts = encoded(model, prompts, system)
    found_nD = np.zeros((len(prompts), model.config.D))
    for ids, rows in batches(prompts, batch):
        found_nD[ids] = np.asarray(_embed(model.params, rows))[: len(ids)]
    return found_nD


def embedding(decoder: Decoder, rows: PromptRows) -> jax.Array:
    """The mean of the last hidden states over each row's prompt, float32[B,D]; 0 for a row without one."""
    hidden_BTD = decoder(*rows)[0].astype(jnp.float32)
    inside_BT1 = (rows.segments_BT > 0)[..., None]
    return jnp.where(inside_BT1, hidden_BTD, 0).sum(axis=1) / jnp.maximum(inside_BT1.sum(axis=1), 1)


_embed = jax.jit(embedding)
