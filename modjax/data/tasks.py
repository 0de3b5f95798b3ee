"""Example, Task and Tasks: text in, text out, each example in one split."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from modjax import arguments, digest
from modjax.errors import InputError

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One example: `source` is the whole prompt, `target` the text to learn."""

    source: str
    target: str
    split: str  # one of SPLITS
    references: tuple[str, ...] = ()  # every accepted answer; () means (target,)

    def __post_init__(self):
        arguments.check_fields(self, ("source", "target"), arguments.text)
        arguments.check_fields(self, ("split",), arguments.choice, SPLITS)
        arguments.check_fields(self, ("references",), arguments.texts)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every accepted answer."""
        return self.references or (self.target,)


@dataclasses.dataclass(frozen=True)
class Task(Sequence):
    """The examples of a task in a fixed order, and facts about the task as a whole."""

    name: str
    examples: tuple[Example, ...]
    family: str | None = None  # known group of related tasks, to judge clusters; never an input to a method
    held_out: bool = False  # kept out of training, for zero-shot evaluation
    definition: str = ""

    def __post_init__(self):
        arguments.check_fields(self, ("name",), arguments.title)
        arguments.check_fields(self, ("definition",), arguments.text)
        arguments.check_fields(self, ("family",), arguments.optional(arguments.text))
        arguments.check_fields(self, ("held_out",), arguments.flag)
        arguments.check_fields(self, ("examples",), _examples)
        if not self.examples:
            raise InputError(f"task {self.name!r} has no examples; expected at least one")

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the examples in their order, and what is known of the task."""
        examples = [(one.source, one.target, one.split, one.references) for one in self.examples]
        return digest.of_json([self.name, self.family, self.held_out, self.definition, examples])

    def split(self, split: str) -> tuple[Example, ...]:
        """The examples of one split, in the task's order."""
        return tuple(example for example in self.examples if example.split == split)


def _examples(name: str, value: Iterable[Example]) -> tuple[Example, ...]:
    found = arguments.items(name, value, "a list of examples")
    for one in found:
        if not isinstance(one, Example):
            raise arguments.refused(f"an item of {name}", one, "an Example")
    return tuple(found)


class Tasks(Mapping):
    """Tasks by name, in a fixed order: `{name: Task}`."""

    def __init__(self, tasks: Iterable[Task]):
        self._tasks: dict[str, Task] = {}
        for task in arguments.items("tasks", tasks, "a list of tasks"):
            if not isinstance(task, Task):
                raise arguments.refused("an item of tasks", task, "a Task")
            if task.name in self._tasks:
                raise InputError(f"two tasks are named {task.name!r}; task names must be unique")
            self._tasks[task.name] = task

    def __getitem__(self, name: str) -> Task:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"Tasks({len(self)} tasks, {sum(map(len, self.values()))} examples)"

    @property
    def fingerprints(self) -> dict[str, str]:
        """{task: its fingerprint}."""
        return {name: task.fingerprint for name, task in self.items()}

    def select(self, names: Iterable[str]) -> "Tasks":
        """The named tasks, in the order of `names`. Raises InputError for an unknown name."""
        names = arguments.items("names", names, "a list of names of tasks")
        for name in names:
            if arguments.text("names", name) not in self._tasks:
                raise InputError(f"no task {name!r}; the collection has {', '.join(self._tasks)}")
        return Tasks(self._tasks[name] for name in names)

    @property
    def training(self) -> "Tasks":
        """The tasks that experts may be trained on."""
        return Tasks(task for task in self.values() if not task.held_out)

    @property
    def held_out(self) -> "Tasks":
        """The tasks kept out of training."""
        return Tasks(task for task in self.values() if task.held_out)

    def families_of(self, experts: Iterable[Sequence[str]]) -> list[str | None]:
        """The family of each expert's first task, given the tasks of each expert; None where it is unknown."""
        firsts = (self._tasks.get(tasks[0]) if tasks else None for tasks in experts)
        return [None if task is None else task.family for task in firsts]

    @property
    def families(self) -> tuple[str | None, ...]:
        return tuple(task.family for task in self.values())


def checked_tasks(tasks: Tasks) -> Tasks:
    """The tasks. Raises InputError for anything else."""
    if not isinstance(tasks, Tasks):
        raise arguments.refused("tasks", tasks, "Tasks, from modjax.data.load or modjax.data.Tasks")
    return tasks


@functools.cache
def assign_split(index: int, train: float = 0.8, validation: float = 0.1) -> str:
    """The split of an example that has none, from its index only.

    As in the FLAN data of the MBC and Arrow paper (arXiv:2405.11157): u = RandomState(index).uniform(); train if u is
    below 0.8, validation below 0.9, test above. So adding examples changes the split of no other.
    """
    u = np.random.RandomState(index).uniform()
    if u < train:
        return "train"
    return "validation" if u < train + validation else "test"
