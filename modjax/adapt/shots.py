"""Few-shot versions of new tasks: the first examples of each."""

import dataclasses

from modjax.arguments import whole
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError


def few(tasks: Tasks, examples: int = 0, validation: int = 0) -> Tasks:
    """The same tasks with only their first examples, and none of them held out, so that they can be trained on.

    Args:
      examples: number of examples kept of each task's split "train"; 0 keeps all.
      validation: the same for split "validation". Split "test" is kept whole.

    Raises InputError if there are no tasks, for numbers below 0, and for a task without examples in split "train".
    """
    if not checked_tasks(tasks):
        raise InputError("no new tasks: expected at least one to adapt to")
    counts = {"train": whole("examples", examples, least=0), "validation": whole("validation", validation, least=0)}
    return Tasks(_few(task, counts) for task in tasks.values())


def _few(task, counts):
    kept = tuple(
        example
        for split in ("train", "validation", "test")
        for example in task.split(split)[: counts.get(split) or len(task)]
    )
    if not any(example.split == "train" for example in kept):
        raise InputError(f"task {task.name!r} has no examples in split 'train'; expected at least one")
    return dataclasses.replace(task, examples=kept, held_out=False)
