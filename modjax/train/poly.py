"""Poly and MHR: a few skills that all tasks share, and each task's weights over them (arXiv 2202.13914, 2211.03831).

    w_t = sigmoid(Z_t) / sum of sigmoid(Z_t),   A_t = sum_e w_te A_e,   B_t = sum_e w_te B_e

Z[tasks, skills] is trained with the skills. In MHR every one of H equal blocks of a site's input and output has weights
of its own, Z[tasks, H, skills].
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts import tie
from modjax.experts.library import ExpertInfo, Library
from modjax.models.config import ModelConfig
from modjax.ops.lora import LoRA, Loras, mixture
from modjax.routing.poly import Poly, task_weights
from modjax.train.fit import Fitted, fit
from modjax.train.lora import drop, init_a, layer_keys
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings

SPREAD = 1e-3  # Z begins uniform in +- this


class PolyTraining(Recipe):
    """Members that each have S skills and weights over them for each of their tasks.

    Trained is {"weights": Z float32[K,E,H,S]}, K being the tasks of a member, and beside it
    {"skills": {site: LoRA(a[L,E,S,R,I], b[L,E,S,R,O])}}, unless the skills are frozen; `frozen` is then
    (scale[1,E,S], skills), else (scale[1,E,S], None). An axis of members that is 1 stands for all.
    """

    by_task = True

    def __init__(self, given: Any, scale_1ES: np.ndarray, skills: Loras | None, rate: float, settings: Settings):
        """given: the arrays to start from, with every site's A; rate: of the weights, over the skills'."""
        self.given, self.frozen, self.rates, self.settings = given, (scale_1ES, skills), {"weights": rate}, settings

    def start(self, key, given):
        return {**given, "skills": tie.once(given["skills"], self.settings.tie)} if "skills" in given else given

    def attach(self, decoder, trained, frozen, rows, key):
        scale_1S, skills = frozen
        skills = self.skills(trained) or skills
        weights_BHS, dropout = task_weights(trained["weights"])[rows.task[:, 0]], self.settings.dropout

        def adapt(layer, sites, x_BTI):
            own, key = layer
            sites = [site for site in sites if site in own]
            if key is not None and sites:
                x_BTI = drop(x_BTI, jax.random.fold_in(key, list(decoder.config.sites).index(sites[0])), dropout)
            return {site: mixture(x_BTI, own[site], scale_1S[0], weights_BHS, "heads") for site in sites}

        return decoder, {"adapters": (skills, layer_keys(decoder, dropout, key)), "adapt": adapt}

    def experts(self, trained, frozen):
        if len(trained["weights"]) > 1:
            return super().experts(trained, frozen)  # a member of many tasks
        scale_1ES, skills = frozen
        weights_EHS, scale = task_weights(trained["weights"][0]), self.settings.alpha / self.settings.rank
        scaled_EHS = weights_EHS * (scale_1ES[0] / scale)[:, None]
        skills = self.skills(trained) or skills
        loras = {site: LoRA(mixed(a, weights_EHS), mixed(b, scaled_EHS)) for site, (a, b) in skills.items()}
        return loras, jnp.full(len(weights_EHS), scale, jnp.float32)

    def skills(self, trained: Any) -> Loras | None:
        """The skills that were trained; None where they are frozen."""
        return tie.everywhere(trained["skills"], self.settings.tie) if "skills" in trained else None


def mixed(leaf_LESRX: jax.Array, weights_EHS: jax.Array) -> jax.Array:
    """The weighted sum over skills, float32[L,E,R,X], of X in H blocks; an axis of members that is 1 stands for all."""
    L, members, S, R, X = leaf_LESRX.shape
    E, H, _ = weights_EHS.shape
    own, shape = ("e", (members,)) if members > 1 else ("", ())
    blocks = leaf_LESRX.reshape(L, *shape, S, R, H, X // H)
    sums_LERHx = jnp.einsum(f"ehs,l{own}srhx->lerhx", weights_EHS, blocks, precision="highest")
    return sums_LERHx.reshape(L, E, R, X)


def train_poly(
    model: Any,
    tasks: Tasks,
    skills: int = 8,
    heads: int = 1,
    weights_rate: float = 100.0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> tuple[Library, Poly]:
    """Trains skills that all tasks share, with each task's weights over them.

    Args:
      model: what `modjax.load` returns.
      tasks: what is learned from; held-out tasks are left out.
      skills: S, 8 in the reference.
      heads: H; 1 is Poly, more is MHR, and must divide the input and output widths of all sites.
      weights_rate: the learning rate of Z over that of the skills; 0.1 over 1e-3 in the reference.
      workdir, progress, settings: as in `train_library`; a row holds examples of one task.

    Returns:
      The skills as a library of S experts, and the router with the learned weights. To an example of one of the tasks
      (see `Poly.choices`) it gives the task's weights, to any other their mean.

    Raises InputError for settings, sites and tasks that do not fit.
    """
    settings, training = Settings(**settings), tasks.training
    check_heads(model.config, settings.sites, heads)
    if skills < 1:
        raise InputError(f"skills={skills}: expected at least one")
    start = jax.jit(init_skills, static_argnums=(1, 2, 3, 4, 5))(
        jax.random.key(settings.seed), model.config, settings, skills, heads, len(training)
    )
    scale_1ES = np.full((1, 1, skills), settings.alpha / settings.rank, np.float32)
    recipe = PolyTraining(start, scale_1ES, None, weights_rate, settings)
    fitted = fit(model, training, {"poly": tuple(training)}, recipe, settings, workdir, progress)
    method = {"method": "poly" if heads == 1 else "mhr", "skills": skills, "heads": heads, "weights_rate": weights_rate}
    library = _library(model, training, recipe.skills(fitted.trained), fitted, settings, method)
    return library, _router(fitted, tuple(training))


def init_skills(key: jax.Array, config: ModelConfig, settings: Settings, skills: int, heads: int, tasks: int) -> dict:
    """Every skill with an A of its own, B zero, Z near 0: skills that began alike would stay so."""
    weights_key, *site_keys = jax.random.split(key, 1 + len(settings.sites))
    keys, first, loras = dict(zip(settings.sites, site_keys, strict=True)), tie.firsts(settings.tie), {}
    for site in settings.sites:
        width, out = config.sites[site]
        shape = (config.L, 1, skills, settings.rank)
        a = init_a(keys[first.get(site, site)], (*shape, width))
        loras[site] = LoRA(a, jnp.zeros((*shape, out), jnp.float32))
    weights_KEHS = jax.random.uniform(weights_key, (tasks, 1, heads, skills), jnp.float32, -SPREAD, SPREAD)
    return {"skills": loras, "weights": weights_KEHS}


def check_heads(config: ModelConfig, sites: tuple[str, ...], heads: int) -> None:
    """Raises InputError unless H divides the widths of all sites."""
    for site in sites:
        if site in config.sites and (heads < 1 or any(width % heads for width in config.sites[site])):
            raise InputError(f"heads={heads}: does not divide the widths of {site}, {config.sites[site]}")


def _library(model, tasks, trained: Loras, fitted: Fitted, settings, method) -> Library:
    loras = {site: LoRA(*(leaf[:, 0] for leaf in lora)) for site, lora in trained.items()}
    n_skills = method["skills"]
    training = method | {"steps": fitted.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}
    infos = tuple(
        ExpertInfo(
            name=f"skill {number}",
            tasks=tuple(tasks),
            rank=settings.rank,
            alpha=settings.alpha,
            base=model.name,
            family=model.config.family,
            fingerprint=model.fingerprint,
            training=tuple(training.items()),
            scores=fitted.scores[0],
        )
        for number in range(n_skills)
    )
    scale_E = jnp.full(n_skills, settings.alpha / settings.rank, jnp.float32)
    return Library(jax.tree.map(jnp.asarray, loras), scale_E, infos)


def _router(fitted: Fitted, tasks: tuple[str, ...]) -> Poly:
    weights_KHS = task_weights(jnp.asarray(fitted.trained["weights"][:, 0]))
    n_layers = next(iter(fitted.trained["skills"].values())).b.shape[0]
    return Poly(jnp.broadcast_to(weights_KHS[None], (n_layers, *weights_KHS.shape)), tasks)
