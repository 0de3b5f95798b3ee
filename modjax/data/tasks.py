"""Task and Tasks: the examples of a task, in memory or read when they are asked for, and facts about it."""

import collections
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from modjax import arguments, digest
from modjax.data.example import Example
from modjax.data.lazy import Lazy, summed
from modjax.data.splits import SPLITS
from modjax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Task(Sequence):
    """The examples of a task in a fixed order, and facts about the task as a whole."""

    name: str
    examples: Sequence[Example]  # a tuple, or Lazy: read from a file or a table each time they are asked for
    family: str | None = None  # known group of related tasks, to judge clusters; never an input to a method
    held_out: bool = False  # kept out of training, for zero-shot evaluation
    definition: str = ""

    def __post_init__(self):
        arguments.check_fields(self, ("name",), arguments.title)
        arguments.check_fields(self, ("definition",), arguments.text)
        arguments.check_fields(self, ("family",), arguments.optional(arguments.text))
        arguments.check_fields(self, ("held_out",), arguments.flag)
        arguments.check_fields(self, ("examples",), _examples)
        if self.examples == ():
            raise InputError(f"task {self.name!r} has no examples; expected at least one")

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    def __eq__(self, other) -> bool:
        return isinstance(other, Task) and self._facts == other._facts and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self._facts)

    @property
    def _facts(self):
        return self.name, self.family, self.held_out, self.definition

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the examples in their order, and what is known of the task."""
        content = self.examples.fingerprint if isinstance(self.examples, Lazy) else summed(self.examples)[1]
        return digest.of_json([*self._facts, content])

    @property
    def sizes(self) -> Mapping[str, int]:
        """{split: its number of examples}"""
        if isinstance(self.examples, Lazy):
            return self.examples.sizes
        counts = collections.Counter(one.split for one in self.examples)
        return {split: counts[split] for split in SPLITS}

    def split(self, split: str) -> tuple[Example, ...]:
        """The examples of one split, in the task's order."""
        if isinstance(self.examples, Lazy):
            return self.examples.split(split)
        return tuple(example for example in self.examples if example.split == split)


def _examples(name: str, value: Iterable[Example]) -> Sequence[Example]:
    if isinstance(value, Lazy):
        return value
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
        return f"Tasks({len(self)} tasks)"

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
