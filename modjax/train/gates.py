"""Training of PhatGoose's gates (arXiv 2402.05859): a vector per expert and site that scores tokens for the expert."""

import dataclasses
import pathlib
from typing import Unpack

import jax
import jax.numpy as jnp

from modjax import arguments
from modjax.data.tasks import Tasks
from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.model import Model
from modjax.ops.lora import Mix, low_rank
from modjax.routing.base import checked_mix
from modjax.routing.examples import groups
from modjax.routing.gates import PhatGoose
from modjax.routing.top_k import checked_top_k
from modjax.train.fit import fit
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings, SettingsFields

DEFAULTS = {
    "steps": 100,
    "batch": 1,
    "length": 1024,
    "learning_rate": 1e-3,
    "warmup": 0.1,
    "dropout": 0.0,
    "too_long": "truncate",
}


class GateTraining(Recipe):
    """A gate for each frozen expert and site, {site: float32[L,E,I]}, which scales the expert's output per token."""

    def __init__(self, library: Library):
        self.library = library
        self.shapes = {site: (len(lora.b), lora.a.shape[-1]) for site, lora in library.loras.items()}
        self.frozen = library.loras

    def made_of(self):
        return {"library": self.library.fingerprint}

    def start(self, key, given, n_members):
        return {site: jnp.zeros((L, n_members, width), jnp.float32) for site, (L, width) in self.shapes.items()}

    def attach(self, decoder, trained, frozen, rows, key_B):
        def adapt(layer, sites, x_BTI):
            loras, gates = layer
            return {
                site: _opening(x_BTI, gates[site]) * low_rank(x_BTI, loras[site].a, loras[site].scale * loras[site].b)
                for site in sites
                if site in loras
            }

        return decoder, {"adapters": (frozen, trained), "adapt": adapt}


def phatgoose(
    library: Library,
    model: Model,
    tasks: Tasks,
    top_k: int = 2,
    temperature: float = -1.0,
    mix: Mix = "outputs",
    failed: bool = False,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> PhatGoose:
    """A router of gates, each trained with its expert frozen on that expert's tasks; all experts in lockstep.

        training:  delta = sigmoid(v_e . x) s_e B_e^T A_e x,  v_e from 0
        routing:   weights = softmax over the top k of LayerNorm(v_e) . LayerNorm(x) / temperature

    LayerNorm has no gain and no bias. Where an expert's update is 0 its gate stays 0, and it gets no weight. By default
    each gate learns for 100 steps of one packed row of 1024 tokens, by AdamW without weight decay, with 10 % of the
    steps warming up, as in the reference code.

    Args:
      model: from `modjax.load`.
      tasks: at least one task of every expert, as listed in `library.tasks`.
      top_k: number of experts kept per token, 2 in the paper; -1, or more than E, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.
      workdir: the folder for metrics and checkpoints; a run that was killed continues from there when it is repeated.
      settings: as in `train_library`. `length` is at most the model's context; the sites are the library's, and
        settings of LoRA itself have no effect.

    Raises InputError for an invalid setting, for an expert without tasks and for a task without examples.
    """
    top_k, mix = checked_top_k(top_k), checked_mix(mix)
    temperature = float(arguments.number("temperature", temperature))
    arguments.instance("model", model, Model).check(library)
    library = silenced(library, failed)
    given = arguments.made(Settings, DEFAULTS | settings | {"sites": library.sites})
    save_every = given.save_every if "save_every" in settings else max(1, given.steps // 4)
    given = dataclasses.replace(given, length=min(given.length, model.config.reach), save_every=save_every)
    recipe, own = GateTraining(library), groups(library, tasks)
    found = fit(model, tasks, own, recipe, given, workdir, progress)
    return PhatGoose(jax.tree.map(jnp.asarray, found.trained), top_k, temperature, mix)


def _opening(x_BTI, gate_I):
    """float32[B,T,1]."""
    return jax.nn.sigmoid(jnp.einsum("bti,i->bt", x_BTI.astype(jnp.float32), gate_I))[..., None]
