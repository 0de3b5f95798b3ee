"""Training of LoRA experts: A and B of all experts in lockstep, over the frozen decoder."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.data.loader import key_of
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError
from modjax.experts import tie
from modjax.experts.library import ExpertInfo, Library
from modjax.model import Model
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.kept import kept
from modjax.ops.lora import Factors, LoRA, Loras, low_rank
from modjax.train.examples import check_settings
from modjax.train.fit import Fitted, fit
from modjax.train.groups import checked_groups, private
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings, SettingsFields


def train_library(
    model: Model,
    tasks: Tasks,
    groups: Mapping[str, Sequence[str]] | None = None,
    workdir: str | pathlib.Path | None = None,
    init: Library | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> Library:
    """Trains one LoRA expert for each group of tasks, all in lockstep over the frozen model.

    Args:
      model: from `modjax.load`; its mesh, if it has one, is used for training.
      tasks: the tasks that the experts may learn from; held-out tasks are left out.
      groups: {expert: [task, ...]}; by default one expert per task, named after it (a private library). One group of
        all tasks gives the shared expert; the clusters of MBC are groups too.
      workdir: the folder for metrics and checkpoints; a run that was killed continues from there when it is repeated,
        with the same result as an uninterrupted one.
      init: experts to start from, one for each group in its order; by default A is random and B zero.
      settings: the fields of `modjax.train.settings.Settings`, such as steps, batch, rank and learning_rate.

    Returns:
      The experts in the order of `groups`; with early stopping, each at its best validation. With several processes
      each gets all experts; only the first writes metrics, and all must see the same `workdir`. An expert whose loss or
      gradient is not finite has its last arrays whose loss was finite, and `ExpertInfo.failed` is the step; the others
      are trained on.

    Raises InputError for settings, sites, tasks and experts that do not fit, before anything is trained.
    """
    arguments.instance("model", model, Model)
    settings, tasks = arguments.made(Settings, settings), checked_tasks(tasks).training
    check_settings(model.config, model.name, settings)
    groups = checked_groups(private(tasks) if groups is None else groups)
    if init is not None:
        _check_init(model, groups, settings, init)
    recipe = lora_recipe(model.config, settings, len(groups), init)
    fitted = fit(model, tasks, groups, recipe, settings, workdir, progress)
    infos = tuple(
        expert_info(model, settings, fitted, member, name, own) for member, (name, own) in enumerate(groups.items())
    )
    return Library(jax.tree.map(jnp.asarray, recipe.experts(fitted.trained, recipe.frozen)), infos)


def expert_info(
    model: Model,
    settings: Settings,
    fitted: Fitted,
    member: int,
    name: str,
    tasks: Sequence[str],
    **method: str | int | float,
) -> ExpertInfo:
    """The ExpertInfo of a trained expert.

    method: entries of its `training` in addition to steps, learning rate, seed and, where given, epochs.
    """
    run = {"steps": fitted.steps[member], "learning_rate": settings.learning_rate, "seed": settings.seed}
    run |= {"epochs": settings.epochs} if settings.epochs else {}
    return ExpertInfo(
        name=name,
        tasks=tuple(tasks),
        rank=settings.rank,
        alpha=settings.alpha,
        base=model.name,
        family=model.config.family,
        fingerprint=model.fingerprint,
        training=tuple((method | run).items()),
        failed=fitted.failed[member],
        scores=fitted.scores[member],
    )


def _check_init(model, groups, settings, init) -> None:
    model.check(init)
    scales = {float(scale) for lora in init.loras.values() for scale in np.unique(lora.scale)}
    found = (len(init), init.rank, sorted(init.sites), sorted(scales))
    scale = float(np.float32(settings.alpha / settings.rank))
    expected = (len(groups), settings.rank, sorted(settings.sites), [scale])
    if found != expected:
        raise InputError(
            f"init: (experts, rank, sites, scales) = {found}; expected {expected} by this run's groups and settings"
        )
    tie.check_factors(settings.tie, init.loras)


def lora_recipe(config: ModelConfig, settings: Settings, n_experts: int, init: Library | None = None) -> "LoRATraining":
    """The recipe of E experts by the settings: each with its own A, or all with one."""
    return (SharedATraining if settings.shared_a else LoRATraining)(config, settings, n_experts, init)


class LoRATraining(Recipe):
    """E experts of one rank, each with its own A and B: {site: Factors(a[L,E,R,I], b[L,E,R,O])}."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Library | None = None):
        self.config, self.settings, self.init = config, settings, init
        self.given = None if init is None else {site: lora.factors for site, lora in init.loras.items()}
        scale_LE = np.full((config.L, n_experts), settings.alpha / settings.rank, np.float32)
        self.frozen = dict.fromkeys(settings.sites, scale_LE)

    def made_of(self):
        return {"init": None if self.init is None else self.init.fingerprint}

    def start(self, key, given, n_members):
        if given is None:
            given = init_factors(key, n_members, self.config, self.settings)
        return tie.once(given, self.settings.tie)

    def attach(self, decoder, trained, frozen, rows, key_B):
        return decoder, one_expert(decoder, self.experts(trained, frozen), self.settings.dropout, key_B)

    def experts(self, trained, frozen):
        factors = tie.everywhere(trained, self.settings.tie)
        return {site: LoRA(*own, frozen[site]) for site, own in factors.items()}


class SharedATraining(LoRATraining):
    """E experts that share one frozen A; only B is trained (SEQR, arXiv 2509.18093): {site: b[L,E,R,O]}."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Library | None = None):
        super().__init__(config, settings, n_experts, init)
        if init is None:
            factors = jax.jit(lambda: init_factors(jax.random.key(settings.seed), 1, config, settings))()
        else:
            factors = init.with_shared_a().loras
        self.given = {site: own.b for site, own in factors.items()}
        self.frozen = self.frozen, {site: own.a for site, own in factors.items()}

    def start(self, key, given, n_members):
        return {site: jnp.broadcast_to(b, (b.shape[0], n_members, *b.shape[2:])) for site, b in given.items()}

    def experts(self, trained, frozen):
        scale, a = frozen
        return {site: LoRA(a[site], b, scale[site]) for site, b in trained.items()}


def init_factors(key: jax.Array, n_experts: int, config: ModelConfig, settings: Settings) -> dict[str, Factors]:
    """A from U(+-1/sqrt(I)) (Kaiming-uniform), B zero: every expert starts as the base model.

    All experts start with the same A, as separate runs with one seed would. After few steps they are still near it, so
    that their similarity reflects what they learned rather than where they started, and their mean is meaningful.
    """
    factors, first = {}, tie.firsts(settings.tie)
    for site in settings.sites:
        width, out = config.sites[site]
        a = init_a(jax.random.fold_in(key, key_of(first.get(site, site), 0)), (config.L, 1, settings.rank, width))
        b = jnp.zeros((config.L, n_experts, settings.rank, out), jnp.float32)
        factors[site] = Factors(jnp.broadcast_to(a, (config.L, n_experts, settings.rank, width)), b)
    return factors


def init_a(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32 from U(+-1/sqrt(I)), I the last axis."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def one_expert(decoder: Decoder, loras: Loras, dropout: float, key_B: jax.Array | None) -> dict:
    """The decoder's keyword arguments that add one expert, {site: LoRA(a[L,R,I], b[L,R,O], scale[L])}."""

    def adapt(layer, sites, x_BTI):
        own, key_B = layer
        sites = [site for site in sites if site in own]
        x_BTI = dropped(x_BTI, decoder, sites, dropout, key_B)
        return {site: low_rank(x_BTI, own[site].a, own[site].scale * own[site].b) for site in sites}

    return {"adapters": (loras, layer_keys(decoder, dropout, key_B)), "adapt": adapt}


def layer_keys(decoder: Decoder, dropout: float, key_B: jax.Array | None) -> jax.Array | None:
    """key[L,B]; None without dropout."""
    if key_B is None or not dropout:
        return None
    return jax.vmap(_folded, (None, 0))(key_B, jnp.arange(decoder.config.L))


def dropped(
    x_BTI: jax.Array, decoder: Decoder, sites: Sequence[str], rate: float, key_B: jax.Array | None
) -> jax.Array:
    """Inverted dropout of the input of sites, with one mask for all of them; without keys or sites, the input."""
    if key_B is None or not sites:
        return x_BTI
    key_B = _folded(key_B, list(decoder.config.sites).index(sites[0]))
    mask_BTI = kept(jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x_BTI.shape[1:]))(key_B))
    return jnp.where(mask_BTI, x_BTI / (1 - rate), 0)


def _folded(key_B, number):
    return jax.vmap(jax.random.fold_in, (0, None))(key_B, number)
