"""New tasks as ones that may be learned from: a few examples of each."""

import dataclasses

from modjax.data.tasks import Tasks
from modjax.errors import InputError


def few(tasks: Tasks, examples: int = 0, validation: int = 0) -> Tasks:
    """The same tasks, none of them held out, with the first of their examples.

    Args:
      examples: of split "train", how many of each task; 0 is all.
      validation: of split "validation", likewise. Split "test" stays whole.

    Raises InputError where there are no tasks, or one has nothing to learn from.
    """
    if not tasks:
        raise InputError("no new tasks: expected at least one to adapt to")
    if examples < 0 or validation < 0:
        raise InputError(f"examples={examples}, validation={validation}: expected at least 0, which is all")
    return Tasks(_few(task, {"train": examples, "validation": validation}) for task in tasks.values())


def _few(task, counts):
    kept = tuple(
        example
        for split in ("train", "validation", "test")
        for example in task.split(split)[: counts.get(split) or len(task)]
    )
    if not any(example.split == "train" for example in kept):
        raise InputError(f"task {task.name!r} has no examples in split 'train'; expected at least one")
    return dataclasses.replace(task, examples=kept, held_out=False)
