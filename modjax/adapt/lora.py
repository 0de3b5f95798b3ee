"""One LoRA for each new task, all in lockstep: from scratch, from a shared expert, or from the mean of a library."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax import merge
from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library, concatenate
from modjax.merge.result import scale_of
from modjax.ops.lora import LoRA
from modjax.train.lora import train_library


def lora(
    model: Any,
    tasks: Tasks,
    init: Library | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Trains an expert on the few examples of each new task, each as it would be alone.

    Args:
      model: what `modjax.load` returns.
      tasks: the new tasks, held out of training or not; see `few`.
      init: what to start from: a library of one, such as the shared expert, for all tasks alike, or one expert a task
        in their order. Its rank, scale and sites are then those of the run. By default A is random and B zero.
      workdir, progress, settings: as in `train_library`. With `patience` each task keeps its best arrays.

    Returns:
      One expert a task, named after it.

    Raises InputError for settings, tasks and experts that do not fit.
    """
    tasks = few(tasks)
    if init is not None:
        init = _for_each(init, tasks)
        settings |= {"rank": init.rank, "alpha": float(init.scale[0]) * init.rank, "sites": init.sites}
    return train_library(model, tasks, None, workdir, init, progress, **settings)


def mu(
    model: Any,
    library: Library,
    tasks: Tasks,
    retrieved: Retrieved | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Starts every task at the mean of the library, A = mean of A_e and B = mean of s_e B_e, and fine-tunes that.

    Args:
      retrieved: {task: the experts that its mean is taken of}, from `retrieve`; by default all.

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
    """An expert to start from for each task, all of one scale."""
    if len(init) not in (1, len(tasks)):
        raise InputError(f"init: {len(init)} experts for {len(tasks)} tasks; expected one for all, or one a task")
    ids = np.zeros(len(tasks), int) if len(init) == 1 else np.arange(len(tasks))
    scale = scale_of(init)
    ratio_E = jnp.asarray(init.scale)[ids] / scale
    loras = {
        site: LoRA(a[:, ids], b[:, ids] * ratio_E[None, :, None, None])
        for site, (a, b) in init.expanded().loras.items()
    }
    infos = tuple(dataclasses.replace(init.infos[i], name=task) for i, task in zip(ids, tasks, strict=True))
    return Library(loras, jnp.full(len(tasks), scale, jnp.float32), infos)
