"""Statistics of a task under a tokenizer: how long its examples are, and what rows of prefix trees save."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from modjax import arguments
from modjax.data.rows import pack
from modjax.data.splits import SPLITS
from modjax.data.tasks import Task
from modjax.data.tokenize import encode

ANY = 2**31 - 1  # tokens, more than an example has


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Counts over the examples of one split of a task, or of several tasks."""

    lengths_n: np.ndarray  # int[n], tokens of each example, prompt and target
    targets: int  # tokens of targets, with the ends of turns
    too_long: int  # examples with more tokens than a row
    rows: int  # that the others fill
    alone: int  # tokens that the model reads of the others, if each stands alone
    shared: int  # of those, the ones that need not be read: what examples of a row begin with is there once

    @property
    def median(self) -> int:
        return int(np.median(self.lengths_n)) if len(self.lengths_n) else 0

    @property
    def longest(self) -> int:
        return int(self.lengths_n.max(initial=0))


def statistics(tokenizer: Any, task: Task, split: str, length: int, system: str | None = None) -> Statistics:
    """Counts over a split of a task, in rows of `length` tokens.

    Args:
      tokenizer: of transformers.
      system: the system message; None leaves it to the chat template.

    Raises InputError as `modjax.data.tokenize.encode`.
    """
    arguments.instance("task", task, Task)
    arguments.choice("split", split, SPLITS)
    arguments.whole("length", length, least=1, most=2**20)
    encoded = encode(tokenizer, task, task.split(split), ANY, system)
    fitting = [one for one in encoded if len(one.tokens) <= length]
    rows = pack(fitting, length) if fitting else None
    alone = sum(len(one.tokens) - 1 for one in fitting)  # nothing is predicted after the last token
    return Statistics(
        lengths_n=np.array([len(one.tokens) for one in encoded], int),
        targets=sum(len(one.tokens) - one.n_prompt for one in encoded),
        too_long=len(encoded) - len(fitting),
        rows=rows.n_rows if rows else 0,
        alone=alone,
        shared=alone - int((rows.ends > 0).sum()) if rows else 0,
    )


def total(parts: Iterable[Statistics]) -> Statistics:
    """The counts over all parts; rows and shared tokens are those of each part alone."""
    parts = list(parts)
    sums = [sum(getattr(part, field.name) for part in parts) for field in dataclasses.fields(Statistics)[1:]]
    return Statistics(np.concatenate([part.lengths_n for part in parts]), *sums)
