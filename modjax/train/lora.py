"""Training LoRA experts: A and B of every member in lockstep, beside the frozen decoder."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.loader import key_of
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts import tie
from modjax.experts.library import ExpertInfo, Library
from modjax.models.config import ModelConfig
from modjax.ops.lora import LoRA, Loras, low_rank
from modjax.train.fit import Fitted, fit
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings


def train_library(
    model: Any,
    tasks: Tasks,
    groups: Mapping[str, Sequence[str]] | None = None,
    workdir: str | pathlib.Path | None = None,
    init: Library | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Trains one LoRA expert for each group of tasks, all in lockstep over the frozen model.

    Args:
      model: what `modjax.load` returns; its mesh, if it has one, is the training's.
      tasks: what the experts may learn from; held-out tasks are left out.
      groups: {expert: [task, ...]}; by default one expert a task, named after it (a private library). One group of
        all tasks is the shared expert, the clusters of MBC are its experts.
      workdir: where metrics and checkpoints go; a run that was killed continues from there, equal to one that was not.
      init: experts to start from, one for each group in its order; by default A is random and B zero.
      settings: the fields of `modjax.train.settings.Settings`.

    Returns:
      The experts in the order of `groups`; with early stopping, each at its best validation. Of several
      processes each gets all of them; only the first writes metrics, all must see the same `workdir`.

    Raises InputError for settings, sites, tasks and experts that do not fit, before anything is trained.
    """
    settings, tasks = Settings(**settings), tasks.training
    groups = dict(groups) if groups is not None else {name: (name,) for name in tasks}
    if init is not None:
        _check_init(model, groups, settings, init)
        init = init.with_shared_a() if settings.shared_a else init.expanded()
    kind = SharedATraining if settings.shared_a else LoRATraining
    recipe = kind(model.config, settings, len(groups), None if init is None else init.loras)
    fitted = fit(model, tasks, groups, recipe, settings, workdir, progress)
    return _library(model, groups, settings, *recipe.experts(fitted.trained, recipe.frozen), fitted)


def _check_init(model, groups, settings, init) -> None:
    model.check(init)
    found = (len(init), init.rank, set(init.sites), set(np.asarray(init.scale).tolist()))
    expected = (len(groups), settings.rank, set(settings.sites), {settings.alpha / settings.rank})
    if found != expected:
        raise InputError(
            f"init: experts, rank, sites, scales are {found}; the groups and settings of this run ask for {expected}"
        )
    tie.check_factors(settings.tie, init.loras)


def _library(model, groups, settings, loras: Loras, scale_E, fitted: Fitted) -> Library:
    training = {"steps": fitted.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}
    infos = tuple(
        ExpertInfo(
            name=name,
            tasks=tuple(own),
            rank=settings.rank,
            alpha=settings.alpha,
            base=model.name,
            family=model.config.family,
            fingerprint=model.fingerprint,
            training=tuple(training.items()),
            scores=scores,
        )
        for (name, own), scores in zip(groups.items(), fitted.scores, strict=True)
    )
    return Library(jax.tree.map(jnp.asarray, loras), jnp.asarray(scale_E), infos)


class LoRATraining(Recipe):
    """E experts of one rank, each its own A and B."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Loras | None = None):
        self.config, self.settings, self.n_experts = config, settings, n_experts
        self.given = init
        self.frozen = np.full(n_experts, settings.alpha / settings.rank, np.float32)

    def start(self, key, given):
        if given is None:
            given = init_loras(key, self.n_experts, self.config, self.settings)
        return tie.once(given, self.settings.tie)

    def attach(self, decoder, trained, frozen, rows, key):
        return decoder, beside(decoder, *self.experts(trained, frozen), self.settings.dropout, key)

    def experts(self, trained, frozen):
        return tie.everywhere(trained, self.settings.tie), frozen


class SharedATraining(LoRATraining):
    """E experts with one A, which stays as it began: only B is trained (SEQR, arXiv 2509.18093)."""

    def __init__(self, config: ModelConfig, settings: Settings, n_experts: int, init: Loras | None = None):
        super().__init__(config, settings, n_experts)
        if init is None:
            init = jax.jit(lambda: init_loras(jax.random.key(settings.seed), 1, config, settings))()
        self.given = {site: lora.b for site, lora in init.items()}
        self.frozen = self.frozen, {site: lora.a for site, lora in init.items()}

    def start(self, key, given):
        return {site: jnp.broadcast_to(b, (b.shape[0], self.n_experts, *b.shape[2:])) for site, b in given.items()}

    def experts(self, trained, frozen):
        scale_E, a = frozen
        return {site: LoRA(a[site], b) for site, b in trained.items()}, scale_E


def init_loras(key: jax.Array, n_experts: int, config: ModelConfig, settings: Settings) -> Loras:
    """A from U(+-1/sqrt(I)) (Kaiming-uniform), B zero: every expert begins as the base model.

    All experts begin with the same A, as runs of one seed do. Experts of few steps stay near it, so their
    similarity tells what they learned and not where they began, and the mean of their factors is worth something.
    """
    loras, first = {}, tie.firsts(settings.tie)
    for site in settings.sites:
        width, out = config.sites[site]
        a = init_a(jax.random.fold_in(key, key_of(first.get(site, site), 0)), (config.L, 1, settings.rank, width))
        b = jnp.zeros((config.L, n_experts, settings.rank, out), jnp.float32)
        loras[site] = LoRA(jnp.broadcast_to(a, (config.L, n_experts, settings.rank, width)), b)
    return loras


def init_a(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32 from U(+-1/sqrt(I)), I the last axis."""
    bound = shape[-1] ** -0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def beside(decoder, loras: Loras, scale, dropout: float, key: jax.Array | None) -> dict:
    """One expert's arrays and keys by layer, and the function that lets the decoder use them."""

    def adapt(layer, sites, x_BTI):
        own, key = layer
        sites = [site for site in sites if site in own]
        if key is not None and sites:
            x_BTI = drop(x_BTI, jax.random.fold_in(key, list(decoder.config.sites).index(sites[0])), dropout)
        return {site: low_rank(x_BTI, own[site].a, scale * own[site].b) for site in sites}

    return {"adapters": (loras, layer_keys(decoder, dropout, key)), "adapt": adapt}


def layer_keys(decoder, dropout: float, key: jax.Array | None) -> jax.Array | None:
    """key[L]; None where nothing is dropped."""
    if key is None or not dropout:
        return None
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(decoder.config.L))


def drop(x: jax.Array, key: jax.Array, rate: float) -> jax.Array:
    """Inverted dropout; sites that read one input share its mask."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)
