"""Training PhatGoose's gates (arXiv 2402.05859): when is an expert, as it is, of use to its own tasks?"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import Mix, low_rank
from modjax.routing.examples import groups
from modjax.routing.gates import PhatGoose
from modjax.train.fit import fit
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings


class GateTraining(Recipe):
    """One vector for each expert and site, which opens or shuts the frozen expert there, token by token."""

    def __init__(self, library: Library):
        self.shapes = {site: (*lora.b.shape[:2], lora.a.shape[-1]) for site, lora in library.loras.items()}
        self.frozen = jax.tree.map(np.asarray, (library.scale, library.loras))

    def start(self, key, given):
        return {site: jnp.zeros(shape, jnp.float32) for site, shape in self.shapes.items()}

    def attach(self, decoder, trained, frozen, rows, key):
        scale, loras = frozen

        def adapt(layer, sites, x_BTI):
            own, gates = layer
            return {
                site: _opening(x_BTI, gates[site]) * low_rank(x_BTI, own[site].a, scale * own[site].b)
                for site in sites
                if site in own
            }

        return decoder, {"adapters": (loras, trained), "adapt": adapt}


def phatgoose(
    library: Library,
    model: Any,
    tasks: Tasks,
    steps: int = 100,
    learning_rate: float = 1e-3,
    batch: int = 1,
    length: int = 1024,
    top_k: int = 2,
    temperature: float = -1.0,
    mix: Mix = "outputs",
    system: str | None = None,
    seed: int = 0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
) -> PhatGoose:
    """A router of gates, each trained with its expert frozen on that expert's tasks; all experts in lockstep.

        training:  delta = sigmoid(v_e . x) s_e B_e^T A_e x,  v_e from 0
        routing:   weights = softmax over the top k of LayerNorm(v_e) . LayerNorm(x) / temperature

    LayerNorm has no gain and no bias. Gates learn by AdamW without weight decay, 10 % of the steps warming up, as in
    the reference code.

    Args:
      model: what `modjax.load` returns.
      tasks: must hold at least one task of every expert; `library.tasks` says which are whose.
      steps: of each gate, each on `batch` packed rows of `length` tokens (of the model's context, if that is less).
      top_k: experts kept for each token, 2 in the paper; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      system: as in `Model.generate`.
      seed: of the order of the rows.
      workdir: where metrics and checkpoints go; a run that was killed continues from there.

    Raises InputError for a setting that cannot be, for an expert without tasks and for a task without examples.
    """
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")
    model.check(library)
    settings = Settings(
        steps=steps,
        learning_rate=learning_rate,
        batch=batch,
        length=min(length, model.config.context),
        sites=library.sites,
        dropout=0.0,
        warmup=0.1,
        seed=seed,
        system=system,
        too_long="truncate",
        save_every=max(1, steps // 4),
    )
    found = fit(model, tasks, groups(library, tasks), GateTraining(library), settings, workdir, progress)
    return PhatGoose(jax.tree.map(jnp.asarray, found.trained), top_k, float(temperature), mix)


def _opening(x_BTI, gate_I):
    """float32[B,T,1]."""
    return jax.nn.sigmoid(jnp.einsum("bti,i->bt", x_BTI.astype(jnp.float32), gate_I))[..., None]
