"""Training a library: one LoRA expert for each group of tasks, all in lockstep."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import ExpertInfo, Library
from modjax.experts.tie import check_factors
from modjax.train.fit import Fitted, fit
from modjax.train.lora import Loras, LoRATraining, SharedATraining
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
    check_factors(settings.tie, init.loras)


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
