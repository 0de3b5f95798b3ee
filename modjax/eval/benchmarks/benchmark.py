"""What a benchmark is: where its records are, what it asks, and how an answer is scored."""

import dataclasses
import os
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from modjax.eval.benchmarks import records
from modjax.eval.benchmarks.records import Form, Hub


class Choices(NamedTuple):
    """A question with choices: each has a context and a continuation, of which the likelihood is compared.

    Contexts are mostly equal; with one continuation for several contexts, as in WinoGrande, the continuations are.
    """

    contexts: tuple[str, ...]
    continuations: tuple[str, ...]  # without the space between context and continuation
    gold: int  # the index of the right one


class Problem(NamedTuple):
    """A question that is answered in words or in code.

    Attributes:
      prompt: what the model continues.
      target: the right answer, or the code of the tests.
      group: the task of the benchmark that it belongs to; "" where there is one only.
      start: code that goes before the answer when it is run.
    """

    prompt: str
    target: str
    group: str = ""
    start: str = ""


class Answering(NamedTuple):
    """How answers are generated, and judged: `right(answer, problem)`, or by running the tests if that is None."""

    stop: tuple[str, ...]
    max_new_tokens: int
    right: Callable[[str, Problem], bool] | None = None


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
      name: its name in files, commands and results.
      version: is raised whenever prompts, metrics or the choice of records change; results of different versions are
        not compared.
      hub: its data set on the Hugging Face hub.
      forms: the ways in which its records are written.
      metric: the headline: "acc_token" for choices, "exact_match" or "pass_at_1" for answers.
      answering: None for choices.
      prepared: makes the questions of all records from those that each form gives; by default they are the questions.
    """

    name: str
    version: int
    hub: Hub
    forms: tuple[Form, ...]
    metric: str = "acc_token"
    answering: Answering | None = None
    prepared: Callable[[list[Any]], list[Any]] = list

    @property
    def part(self) -> int:
        """The number of questions that are scored, and kept, together: of those with long answers fewer."""
        return 256 if self.answering is None else 64

    @property
    def runs_code(self) -> bool:
        """Whether answers are programs, which are run."""
        return self.answering is not None and self.answering.right is None

    def questions(self, source: str | os.PathLike | None = None) -> list[Choices] | list[Problem]:
        """All questions of a file or folder, or of the hub where `source` is None. Raises InputError as `records`."""
        return self.prepared(records.questions(source, self.hub, self.forms))

    def sample(self, questions: Sequence[Any], examples: int, seed: int) -> list[Any]:
        """At most `examples` questions of each group, chosen by seed and index alone, in their order; 0 is all."""
        groups: dict[str, list[int]] = {}
        for i, one in enumerate(questions):
            groups.setdefault(getattr(one, "group", ""), []).append(i)
        kept: list[int] = []
        for group, own in groups.items():
            if 0 < examples < len(own):
                digest = zlib.crc32(f"{seed}:{self.name}:{group}".encode())
                own = [own[i] for i in np.random.RandomState(digest).permutation(len(own))[:examples]]
            kept += own
        return [questions[i] for i in sorted(kept)]
