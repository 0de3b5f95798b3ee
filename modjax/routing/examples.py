"""What experts were trained on: the examples that routers learn from, and which tasks are whose."""

from __future__ import annotations

import numpy as np

from modjax.data.tasks import Tasks
from modjax.data.tokenize import Encoded, encode
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing.base import BaseModel


def groups(library: Library, tasks: Tasks) -> dict[str, tuple[str, ...]]:
    """{expert: those of its tasks that are here}. Raises InputError for an expert that has none."""
    found = {info.name: tuple(task for task in info.tasks if task in tasks) for info in library.infos}
    for info in library.infos:
        if not found[info.name]:
            raise InputError(
                f"expert {info.name!r} was trained on {', '.join(info.tasks) or 'no known task'}; the collection has "
                f"{', '.join(tasks)}. Give tasks of every expert"
            )
    return found


def known_tasks(library: Library, tasks: Tasks) -> tuple[list[str], np.ndarray]:
    """The tasks with an expert, and float32[K,E]: each one's experts in equal parts that sum to 1.

    Raises InputError where no task has an expert.
    """
    names = [name for name in tasks if library.expert_of(name) is not None]
    if not names:
        raise InputError(f"no expert was trained on any of {', '.join(tasks)}; expected tasks of the library")
    trained_KE = np.array([[name in own for own in library.tasks] for name in names], np.float32)
    return names, trained_KE / trained_KE.sum(axis=1, keepdims=True)


def first_of(tasks: Tasks, name: str, examples: int, split: str):
    """The first so many examples of a task's split. Raises InputError where there are none."""
    found = tasks[name].split(split)[:examples]
    if not found:
        raise InputError(f"task {name!r} has no examples in split {split!r}; expected at least one")
    return found


def examples_of(
    library: Library, model: BaseModel, tasks: Tasks, examples: int, split: str, system: str | None
) -> tuple[list[Encoded], np.ndarray]:
    """The first examples of each task of each expert, with whose they are, int[n].

    Prompts that are too long for the context lose their left end.
    """
    if model.tokenizer is None:
        raise InputError(f"{model.name}: the checkpoint has no tokenizer, so no example can be read")
    encoded, owners = [], []
    for e, names in enumerate(groups(library, tasks).values()):
        for name in names:
            chosen = first_of(tasks, name, examples, split)
            encoded += encode(model.tokenizer, tasks[name], chosen, model.config.context, system, "truncate")
            owners += [e] * len(chosen)
    return encoded, np.asarray(owners)
