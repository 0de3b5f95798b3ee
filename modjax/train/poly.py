"""Poly and MHR: a few skills shared by all tasks, and weights of each task over them (arXiv 2202.13914, 2211.03831).

    w_t = sigmoid(Z_t) / sum of sigmoid(Z_t),   A_t = sum_e w_te A_e,   B_t = sum_e w_te B_e

Z[tasks, skills] is trained together with the skills. In MHR each of H equal blocks of a site's input and output has its
own weights, Z[tasks, H, skills].
"""

import pathlib
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError
from modjax.experts import tie
from modjax.experts.library import Library
from modjax.model import Model
from modjax.models.config import ModelConfig
from modjax.ops.lora import Factors, LoRA, Loras, mixture
from modjax.routing.poly import Poly, task_weights
from modjax.train.examples import check_settings
from modjax.train.fit import Fitted, checked_run, fit
from modjax.train.lora import dropped, expert_info, init_a, layer_keys
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings, SettingsFields

MOST = 2**16  # skills
SPREAD = 1e-3  # Z starts uniform in [-SPREAD, SPREAD]


class PolyTraining(Recipe):
    """Members that each have S skills, and weights over the skills for each of their K tasks.

    The trained arrays are {"weights": Z float32[K,E,H,S]} and, unless the skills are frozen, {"skills": {site:
    Factors(a[L,E,S,R,I], b[L,E,S,R,O])}}. `frozen` is {site: scale[L,E,S]} if the skills are trained, else {site:
    LoRA(a, b, scale)}. All members share arrays whose member axis has size 1.
    """

    by_task = True

    def __init__(self, given: Any, frozen: Any, rate: float, settings: Settings):
        """given: the initial arrays, with A at every site; rate: learning rate of the weights / that of the skills."""
        self.given, self.frozen, self.rates, self.settings = given, frozen, {"weights": rate}, settings

    def start(self, key, given, n_members):
        return {**given, "skills": tie.once(given["skills"], self.settings.tie)} if "skills" in given else given

    def attach(self, decoder, trained, frozen, rows, key_B):
        weights_BHS, dropout = task_weights(trained["weights"])[rows.task[:, 0]], self.settings.dropout

        def adapt(layer, sites, x_BTI):
            skills, key_B = layer
            sites = [site for site in sites if site in skills]
            x_BTI = dropped(x_BTI, decoder, sites, dropout, key_B)
            return {site: mixture(x_BTI, skills[site], weights_BHS, "heads") for site in sites}

        adapters = (self.skills(trained, frozen), layer_keys(decoder, dropout, key_B))
        return decoder, {"adapters": adapters, "adapt": adapt}

    def experts(self, trained, frozen):
        if len(trained["weights"]) > 1:
            return super().experts(trained, frozen)  # raises: a member of several tasks is not one LoRA
        weights_EHS, scale = task_weights(trained["weights"][0]), self.settings.alpha / self.settings.rank
        loras = {}
        for site, (a, b, scale_LES) in self.skills(trained, frozen).items():
            scaled_LEHS = weights_EHS[None] * (scale_LES / scale)[:, :, None]
            scale_LE = jnp.full((len(b), len(weights_EHS)), scale, jnp.float32)
            loras[site] = LoRA(mixed(a, weights_EHS[None]), mixed(b, scaled_LEHS), scale_LE)
        return loras

    def skills(self, trained: Any, frozen: Any) -> Loras:
        """The skills of all members, or of one."""
        if "skills" not in trained:
            return frozen
        factors = tie.everywhere(trained["skills"], self.settings.tie)
        return {site: LoRA(*own, frozen[site]) for site, own in factors.items()}


def mixed(leaf_LESRX: jax.Array, weights_LEHS: jax.Array) -> jax.Array:
    """The weighted sum over skills, float32[L,E,R,X], of X in H blocks; layer or member axes of size 1 are shared."""
    L, members, S, R, X = leaf_LESRX.shape
    E, H = weights_LEHS.shape[1:3]
    own, shape = ("e", (members,)) if members > 1 else ("", ())
    blocks = leaf_LESRX.reshape(L, *shape, S, R, H, X // H)
    weights_LEHS = jnp.broadcast_to(weights_LEHS, (L, *weights_LEHS.shape[1:]))
    sums_LERHx = jnp.einsum(f"lehs,l{own}srhx->lerhx", weights_LEHS, blocks, precision="highest")
    return sums_LERHx.reshape(L, E, R, X)


def train_poly(
    model: Model,
    tasks: Tasks,
    skills: int = 8,
    heads: int = 1,
    weights_rate: float = 100.0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> tuple[Library, Poly]:
    """Trains skills that all tasks share, with the weights of each task over them.

    Args:
      model: from `modjax.load`.
      tasks: the tasks to learn from; held-out tasks are left out.
      skills: S, 8 in the reference.
      heads: H; 1 is Poly, more is MHR. It must divide the input and output widths of all sites.
      weights_rate: the learning rate of Z relative to that of the skills; 0.1 over 1e-3 in the reference.
      workdir, progress, settings: as in `train_library`; a row holds examples of one task.

    Returns:
      The skills as a library of S experts, and the router with the learned weights. An example of one of these tasks
      (see `Poly.choices`) gets the weights of its task, any other example the mean of all tasks' weights.

    Raises InputError for settings, sites and tasks that do not fit.
    """
    arguments.instance("model", model, Model)
    settings, training = arguments.made(Settings, settings), checked_tasks(tasks).training
    check_settings(model.config, model.name, settings)
    heads = checked_heads(model.config, settings.sites, heads)
    skills = arguments.whole("skills", skills, least=1, most=MOST)
    weights_rate = arguments.number("weights_rate", weights_rate, least=0)
    checked_run(workdir, progress)
    start = jax.jit(init_skills, static_argnums=(1, 2, 3, 4, 5))(
        jax.random.key(settings.seed), model.config, settings, skills, heads, len(training)
    )
    scale_L1S = np.full((model.config.L, 1, skills), settings.alpha / settings.rank, np.float32)
    recipe = PolyTraining(start, dict.fromkeys(settings.sites, scale_L1S), weights_rate, settings)
    fitted = fit(model, training, {"poly": tuple(training)}, recipe, settings, workdir, progress)
    method = {"method": "poly" if heads == 1 else "mhr", "skills": skills, "heads": heads, "weights_rate": weights_rate}
    infos = tuple(
        expert_info(model, settings, fitted, 0, f"skill {number}", tuple(training), **method)
        for number in range(skills)
    )
    loras = jax.tree.map(lambda leaf: jnp.asarray(leaf[:, 0]), recipe.skills(fitted.trained, recipe.frozen))
    return Library(loras, infos), _router(fitted, tuple(training), model.config.L)


def init_skills(key: jax.Array, config: ModelConfig, settings: Settings, skills: int, heads: int, tasks: int) -> dict:
    """Every skill with its own A, B zero, Z near 0: skills that start equal would stay equal."""
    weights_key, *site_keys = jax.random.split(key, 1 + len(settings.sites))
    keys, first, loras = dict(zip(settings.sites, site_keys, strict=True)), tie.firsts(settings.tie), {}
    for site in settings.sites:
        width, out = config.sites[site]
        shape = (config.L, 1, skills, settings.rank)
        a = init_a(keys[first.get(site, site)], (*shape, width))
        loras[site] = Factors(a, jnp.zeros((*shape, out), jnp.float32))
    weights_KEHS = jax.random.uniform(weights_key, (tasks, 1, heads, skills), jnp.float32, -SPREAD, SPREAD)
    return {"skills": loras, "weights": weights_KEHS}


def checked_heads(config: ModelConfig, sites: tuple[str, ...], heads: int) -> int:
    """H. Raises InputError unless it divides the widths of all sites."""
    heads = arguments.whole("heads", heads, least=1)
    for site in sites:
        if site in config.sites and any(width % heads for width in config.sites[site]):
            raise InputError(f"heads={heads}: does not divide the widths of {site}, {config.sites[site]}")
    return heads


def _router(fitted: Fitted, tasks: tuple[str, ...], n_layers: int) -> Poly:
    weights_KHS = task_weights(jnp.asarray(fitted.trained["weights"][:, 0]))
    return Poly(jnp.broadcast_to(weights_KHS[None], (n_layers, *weights_KHS.shape)), tasks)
