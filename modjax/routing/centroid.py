"""Centroid matching, CM (arXiv 2405.11157, section 4.2): tokens go to the experts whose training inputs were alike."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import BaseModel, Context, Router, hook, per_site, static, top_k_softmax
from modjax.routing.examples import examples_of
from modjax.routing.oracle import Oracle
from modjax.routing.prompt import batches

Through = Literal["expert", "base"]
End = Literal["answer", "prompt"]


class Centroid(Router):
    centroids: dict[str, jax.Array] = per_site("LEI")  # float32, unit vectors
    top_k: int = static(-1)
    temperature: float = static(-1.0)
    mix: Mix = static("parameters")

    def __call__(self, site, x_BTI, context):
        centroid_EI = self.centroids[site]
        score_BTE = jnp.einsum("bti,ei->bte", x_BTI.astype(jnp.float32), centroid_EI)
        temperature = self.temperature if self.temperature > 0 else centroid_EI.shape[-1] ** 0.5
        return top_k_softmax(score_BTE, self.top_k, temperature)


def centroid(
    library: Library,
    model: BaseModel,
    tasks: Tasks,
    examples: int = 10,
    split: str = "train",
    through: Through = "expert",
    end: End = "answer",
    top_k: int = -1,
    temperature: float = -1.0,
    mix: Mix = "parameters",
    system: str | None = None,
    batch: int = 16,
) -> Centroid:
    """A router from what each site of each layer read of the experts' own examples.

        c_e = mean over expert e's examples of the site's input at the last token, divided by its length
        weights = softmax over the top k of x . c_e / temperature

    The dot product keeps its sign: a centroid has one, unlike Arrow's prototypes.

    Args:
      tasks: must hold at least one task of every expert; `library.tasks` says which are whose.
      examples: the first so many of the split, of each of an expert's tasks; 10 in the reference code.
      through: whose activations: those of the model with the example's own "expert", as in the reference code, or of
        the "base" model.
      end: the last token of the "answer", the end of turn, as in the reference code, or of the "prompt".
      top_k: experts kept for each token; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      system: as in `Model.generate`.
      batch: examples side by side; results do not depend on it but for rounding.

    Raises InputError for a setting that cannot be, for an expert without tasks and for a task without examples.
    """
    if top_k == 0 or top_k < -1 or through not in get_args(Through) or end not in get_args(End):
        raise InputError(
            f"top_k={top_k}, through={through!r}, end={end!r}: expected a positive number of experts or -1 for all, "
            f"one of {', '.join(get_args(Through))}, and one of {', '.join(get_args(End))}"
        )
    encoded, owners = examples_of(library, model, tasks, examples, split, system)
    tokens = [one.tokens if end == "answer" else one.tokens[: one.n_prompt] for one in encoded]
    experts = (library.loras, library.scale, Oracle(len(library)))
    total = {site: np.zeros((lora.b.shape[0], len(library), lora.a.shape[-1])) for site, lora in library.loras.items()}
    for ids, rows in batches(tokens, batch):
        own = np.full(len(rows.tokens_BT), -1, np.int32)
        own[: len(ids)] = owners[ids]
        context = Context(jnp.asarray(own if through == "expert" else np.full_like(own, -1)))
        for site, x_LBI in _last_inputs(model.params, experts, context, rows).items():
            np.add.at(total[site], (slice(None), owners[ids]), np.asarray(x_LBI, np.float64)[:, : len(ids)])
    return Centroid({site: _unit(total_LEI) for site, total_LEI in total.items()}, top_k, float(temperature), mix)


@jax.jit
def _last_inputs(decoder, experts, context, rows):
    """{site: float[L,B,I]}, what each site of the library reads at the last token of each row."""
    last_B = jnp.argmax(jnp.cumsum(rows.segments_BT > 0, axis=1), axis=1)

    def look(layer, sites, x_BTI):
        x_BI = jnp.take_along_axis(x_BTI, last_B[:, None, None], axis=1)[:, 0]
        return {site: x_BI for site in sites if site in layer[0]}

    return decoder.observe(look, *rows, **hook(experts, context))


def _unit(total_LEI):
    length_LE1 = np.linalg.norm(total_LEI, axis=-1, keepdims=True)
    return jnp.float32(total_LEI / np.where(length_LE1 > 0, length_LE1, 1))
