"""The sample of a task: which of its examples are read, and how they are encoded."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np

from modjax import arguments
from modjax.data import inputs
from modjax.data.example import Example
from modjax.data.splits import SPLITS
from modjax.data.tasks import Task
from modjax.data.token_cache import TokenCache
from modjax.data.tokenize import Encoded, TooLong
from modjax.errors import InputError
from modjax.model import Model


@dataclasses.dataclass(frozen=True)
class Sample:
    """The settings that choose and encode examples: the same examples for every method, batch size and machine."""

    examples: int = 100  # at most this many per task, chosen only by seed and index; 0 is all
    split: str = "test"  # "train", "validation" or "test"
    seed: int = 0  # seed of the choice of examples
    length: int = 2048  # the most tokens of prompt and target together
    system: str | None = None  # system message of each prompt; None leaves it to the chat template
    too_long: TooLong = "error"  # for examples above `length`; "truncate" cuts prompts, "truncate_all" targets too

    def __post_init__(self):
        arguments.check_fields(self, ("examples",), arguments.whole, least=0)
        arguments.check_fields(self, ("length",), arguments.whole, least=1)
        arguments.check_fields(self, ("seed",), arguments.seed)
        arguments.check_fields(self, ("split",), arguments.choice, SPLITS)
        arguments.check_fields(self, ("too_long",), arguments.choice, get_args(TooLong))
        arguments.check_fields(self, ("system",), arguments.optional(arguments.text))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Sample":
        """The sample of settings that may have other keys too, such as `config.evaluate`."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: settings[name] for name in names if name in settings})

    def choose(self, task: Task) -> tuple[Example, ...]:
        """The examples of a task, in the task's order. Raises InputError where the split is empty."""
        examples = task.split(self.split)
        if not examples:
            raise InputError(f"task {task.name!r} has no examples in split {self.split!r}; expected at least one")
        if not 0 < self.examples < len(examples):
            return examples
        digest = zlib.crc32(f"{self.seed}:{task.name}".encode())
        order = np.random.RandomState(digest).permutation(len(examples))
        return tuple(examples[i] for i in sorted(order[: self.examples]))


class Chosen(NamedTuple):
    """One example of a sample, encoded."""

    task: Task
    example: Example
    encoded: Encoded


def prepared(model: Model, tasks: Mapping[str, Task], sample: Sample, max_new_tokens: int = 0) -> list[Chosen]:
    """The sample of every task, task by task.

    Raises InputError for an empty split, and for examples that the model cannot read or that leave no room in its
    context for answers of `max_new_tokens` tokens; see `modjax.data.inputs.examples`. Prompts that may be truncated are
    truncated so that there is room.
    """
    if not isinstance(sample, Sample):
        raise arguments.refused("sample", sample, "a modjax.eval.Sample")
    length, found, cache = sample.length, [], TokenCache(model)
    if sample.too_long != "error":
        length = min(length, model.config.reach - max_new_tokens)
    for task in tasks.values():
        own = sample.choose(task)
        how = (length, sample.system, sample.too_long, max_new_tokens)
        made_of = {"sample": dataclasses.asdict(sample), "how": how}
        encoded = cache.get(task, made_of, functools.partial(inputs.examples, model, task, own, *how))
        found += map(Chosen, [task] * len(own), own, encoded)
    return found
