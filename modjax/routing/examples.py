"""Examples of the tasks that experts were trained on, from which routers are built."""

from collections.abc import Sequence

import numpy as np

from modjax.arguments import choice, instance, whole
from modjax.data import inputs
from modjax.data.example import Example
from modjax.data.splits import SPLITS
from modjax.data.tasks import Tasks, checked_tasks
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.experts.failed import left_out
from modjax.experts.library import Library
from modjax.routing.base import BaseModel


def groups(library: Library, tasks: Tasks) -> dict[str, tuple[str, ...]]:
    """{expert: those of its tasks that are in `tasks`}. Raises InputError for an expert with none."""
    tasks = checked_tasks(tasks)
    found = {info.name: tuple(task for task in info.tasks if task in tasks) for info in library.infos}
    for info in library.infos:
        if not found[info.name]:
            raise InputError(
                f"expert {info.name!r} was trained on {', '.join(info.tasks) or 'no known task'}; found only "
                f"{', '.join(tasks)}; expected at least one task of every expert"
            )
    return found


def known_tasks(library: Library, tasks: Tasks, failed: bool = False) -> tuple[list[str], np.ndarray]:
    """The K tasks with an expert, and float32[K,E]: equal weights of the experts of each task, summing to 1.

    failed: whether experts whose training failed count too. Raises InputError if no task has an expert.
    """
    without = left_out(library, failed)
    owned = [() if i in without else own for i, own in enumerate(library.tasks)]
    names = [name for name in checked_tasks(tasks) if any(name in own for own in owned)]
    if not names:
        raise InputError(f"no expert was trained on any of {', '.join(tasks)}; expected tasks of the library")
    trained_KE = np.array([[name in own for own in owned] for name in names], np.float32)
    return names, trained_KE / trained_KE.sum(axis=1, keepdims=True)


def first_of(tasks: Tasks, name: str, examples: int, split: str) -> Sequence[Example]:
    """The first `examples` examples of a task's split, at least one. Raises InputError if there are none."""
    choice("split", split, SPLITS)
    found = tasks[name].split(split)[: whole("examples", examples, least=1)]
    if not found:
        raise InputError(f"task {name!r} has no examples in split {split!r}; expected at least one")
    return found


def examples_of(
    library: Library, model: BaseModel, tasks: Tasks, examples: int, split: str, system: str | None
) -> tuple[list[Encoded], np.ndarray]:
    """The first examples of each task of each expert, and the index of the expert of each, int[n].

    Prompts longer than the context are truncated on the left.
    """
    instance("model", model, BaseModel)
    encoded, owners = [], []
    for e, names in enumerate(groups(library, tasks).values()):
        for name in names:
            chosen = first_of(tasks, name, examples, split)
            encoded += inputs.examples(model, tasks[name], chosen, model.config.reach, system, "truncate")
            owners += [e] * len(chosen)
    return encoded, np.asarray(owners)
