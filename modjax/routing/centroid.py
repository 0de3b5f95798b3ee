"""Centroid matching, CM (arXiv 2405.11157, section 4.2): tokens go to experts whose training inputs are similar."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import choice, number
from modjax.data.tasks import Tasks
from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.norms import unit
from modjax.parallel.distributed import gather
from modjax.routing.base import BaseModel, Bound, Context, Router, checked_mix, hook, per_site, static
from modjax.routing.examples import examples_of
from modjax.routing.oracle import Oracle
from modjax.routing.prompt import batches
from modjax.routing.prototypes import has_direction
from modjax.routing.top_k import checked_top_k, heard, positive_temperature, top_k_softmax, without_silent

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
        temperature = positive_temperature(self.temperature, centroid_EI.shape[-1])
        return top_k_softmax(without_silent(score_BTE, heard(centroid_EI)), self.top_k, temperature)


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
    failed: bool = False,
) -> Centroid:
    """A router from the inputs of each site and layer on the experts' own examples.

        c_e = u_e / ||u_e||,  u_e = mean over expert e's examples of the site's input at the last token
        weights = softmax over the top k of x . c_e / temperature

    The sign of the dot product is kept, unlike in Arrow, where the sign of a prototype is arbitrary. Where an expert's
    update is 0 it has no centroid, and no weight.

    Args:
      tasks: must contain at least one task of every expert; `library.tasks` lists those of each.
      examples: the number of examples per task, the first of the split; 10 in the reference code.
      through: the activations used: those of the model with the example's own "expert", as in the reference code, or of
        the "base" model.
      end: use the last token of the "answer" (the end of turn), as in the reference code, or of the "prompt".
      top_k: experts kept per token; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      system: as in `Model.generate`.
      batch: examples per batch; it changes results only by rounding.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting, for an expert without tasks and for a task without examples.
    """
    top_k, temperature, mix = checked_top_k(top_k), float(number("temperature", temperature)), checked_mix(mix)
    choice("through", through, get_args(Through))
    choice("end", end, get_args(End))
    library = silenced(library, failed)
    encoded, owners = examples_of(library, model, tasks, examples, split, system)
    tokens = [one.tokens if end == "answer" else one.tokens[: one.n_prompt] for one in encoded]
    bound = Bound(library.loras, Oracle(len(library)))
    total = {site: np.zeros((library.layers, len(library), lora.a.shape[-1])) for site, lora in library.loras.items()}
    for ids, rows in batches(tokens, batch, model.params.row_shards):
        own = np.full(len(rows.tokens_BT), -1, np.int32)
        own[: len(ids)] = owners[ids]
        context = Context(jnp.asarray(own if through == "expert" else np.full_like(own, -1)))
        for site, x_LBI in gather(_last_inputs(model.params, bound, context, rows)).items():
            np.add.at(total[site], (slice(None), owners[ids]), np.float64(x_LBI)[:, : len(ids)])
    centroids = {
        site: jnp.where(has_direction(library.loras[site])[..., None], jnp.float32(unit(total_LEI)), 0)
        for site, total_LEI in total.items()
    }
    return Centroid(centroids, top_k, temperature, mix)


@jax.jit
def _last_inputs(decoder, bound, context, rows):
    """{site: float[L,B,I]}, the input of each site of the library at the last token of each row."""

    def look(layer, sites, x_BTI):
        x_BI = rows.last(x_BTI)
        return {site: x_BI for site in sites if site in bound.loras}

    return decoder.observe(look, *rows, **hook(bound, context))
