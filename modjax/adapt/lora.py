"""One LoRA for each new task, all in lockstep: from scratch, from a shared expert, or from the mean of a library."""

import dataclasses
import pathlib
from typing import Unpack

import jax.numpy as jnp
import numpy as np

from modjax import merge
from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library, concatenate
from modjax.merge.result import scale_of
from modjax.model import Model
from modjax.ops.lora import LoRA
from modjax.train.lora import train_library
from modjax.train.settings import SettingsFields


def lora(
    model: Model,
    tasks: Tasks,
    init: Library | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> Library:
    """Trains one expert for each new task on its few examples, with the same result as training each alone.

    Args:
      model: from `modjax.load`.
      tasks: the new tasks, held out of training or not; see `few`.
      init: the experts to start from: a library of one for all tasks, such as the shared expert, or one expert per
        task, in the order of the tasks. The run then has its rank, scale and sites. By default A is random and B zero.
      workdir, progress, settings: as in `train_library`. With `patience` each task keeps its best arrays.

    Returns:
      One expert per task, named after it.

    Raises InputError for settings, tasks and experts that do not fit.
    """
    tasks = few(tasks)
    if init is not None:
        init = _for_each(init, tasks)
        settings |= {"rank": init.rank, "alpha": float(init.scale[0]) * init.rank, "sites": init.sites}
    return train_library(model, tasks, None, workdir, init, progress, **settings)


def mu(
    model: Model,
    library: Library,
    tasks: Tasks,
    retrieved: Retrieved | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> Library:
    """Fine-tunes the mean of the library, A = mean of A_e and B = mean of s_e B_e, on each new task.

    Args:
      retrieved: {task: the experts whose mean it starts from}, from `retrieve`; by default all experts, without those
        whose training failed.

    The other arguments, the result and the errors are those of `lora`.
    """
    model.check(library)
    chosen = retrieved_from(library, few(tasks), retrieved)
    if retrieved is None:
        start = merge.uniform(library)
    else:
        start = concatenate([merge.uniform(library[own], name=task) for task, own in chosen.items()])
    return lora(model, tasks, start, workdir, progress, **settings)


def _for_each(init, tasks) -> Library:
    """One initial expert per task, all with the same scale."""
    if len(init) not in (1, len(tasks)):
        raise InputError(f"init: {len(init)} experts for {len(tasks)} tasks; expected one for all, or one per task")
    ids = np.zeros(len(tasks), int) if len(init) == 1 else np.arange(len(tasks))
    scale = scale_of(init)
    loras = {}
    for site, lora in init.loras.items():
        (a, b), scale_LE = lora.factors, lora.scale[:, ids]
        b = b[:, ids] * (scale_LE / scale)[..., None, None]
        loras[site] = LoRA(a[:, ids], b, jnp.full_like(scale_LE, scale))
    infos = tuple(
        dataclasses.replace(init.infos[i], name=task, alpha=scale * init.infos[i].rank)
        for i, task in zip(ids, tasks, strict=True)
    )
    return Library(loras, infos)
