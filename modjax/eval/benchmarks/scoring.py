"""Scores of a model, or of a routed library, on the questions of a benchmark."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict, Unpack

import numpy as np

from modjax import arguments
from modjax.errors import InputError, suggestion
from modjax.eval import execution
from modjax.eval.benchmarks import encoding, likelihood
from modjax.eval.benchmarks.benchmark import Benchmark
from modjax.eval.benchmarks.catalogue import BENCHMARKS
from modjax.eval.benchmarks.continuation import continuations
from modjax.eval.benchmarks.result import Result, joined
from modjax.eval.execution import Limits
from modjax.eval.method import Method
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.generation import Request
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.progress import progress_bar
from modjax.routing.base import Router


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """How questions are chosen and asked.

    Attributes:
      examples: the most questions of a benchmark, of BBH those of each task; 0 is all.
      seed: of the choice of questions, which depends on nothing else.
      chat: ask through the model's chat template; by default prompts are plain text.
      execute: run the programs that the model writes, as HumanEval and MBPP need; see `modjax.eval.execution`.
      batch: questions computed at once; scores do not depend on it.
      limits: of the programs.
    """

    examples: int = 0
    seed: int = 0
    chat: bool = False
    execute: bool = False
    batch: int = 32
    limits: Limits = Limits()

    def __post_init__(self):
        arguments.check_fields(self, ("examples",), arguments.whole, least=0)
        arguments.check_fields(self, ("batch",), arguments.whole, least=1)
        arguments.check_fields(self, ("seed",), arguments.seed)
        arguments.check_fields(self, ("chat", "execute"), arguments.flag)
        arguments.check_fields(self, ("limits",), arguments.instance, Limits)

    def check(self, benchmark: Benchmark) -> None:
        """Raises InputError for a benchmark whose programs may not, or cannot, be run."""
        if benchmark.runs_code and not self.execute:
            raise InputError(
                f"benchmark {benchmark.name!r} runs the programs that the model writes; expected execute=True, which "
                "allows it, or other benchmarks"
            )
        if benchmark.runs_code:
            execution.check()


class BenchmarkFields(TypedDict, total=False):
    """The fields of `BenchmarkSettings` as keyword arguments."""

    examples: int
    seed: int
    chat: bool
    execute: bool
    batch: int
    limits: Limits


def named(name: str) -> Benchmark:
    """The benchmark of a name. Raises InputError if there is none."""
    if arguments.text("benchmark", name) not in BENCHMARKS:
        raise InputError(f"no benchmark {name!r:.80}; {suggestion(name, BENCHMARKS)}")
    return BENCHMARKS[name]


def benchmark(
    model: Model,
    name: str,
    path: str | os.PathLike | None = None,
    library: Library | PagedLibrary | None = None,
    router: Router | None = None,
    progress: bool = True,
    **settings: Unpack[BenchmarkFields],
) -> Result:
    """Scores the base model, or a library with a router, on one benchmark.

    Args:
      name: one of `modjax.eval.BENCHMARKS`.
      path: a file or folder of its records; None reads them from the Hugging Face hub.
      library: None is the base model; a library of one expert needs no router.
      progress: show a bar.
      settings: the fields of `BenchmarkSettings`: examples, seed, chat, execute, batch, limits.

    Raises InputError for records that cannot be read, a library that does not fit the model, a router that needs to be
    told an expert, and without `execute` for a benchmark of programs.
    """
    arguments.instance("model", model, Model)
    own, path = named(name), arguments.optional(arguments.path)("path", path)
    given = arguments.made(BenchmarkSettings, settings)
    given.check(own)
    method, progress = Method("evaluated", library, router), arguments.flag("progress", progress)
    questions = own.sample(own.questions(path), given.examples, given.seed)
    with progress_bar(len(questions), "question", show=progress) as bar:
        found = []
        for part in parts(model, method, own, questions, given):
            found.append(part)
            bar.update(part.examples)
    return joined(found)


def parts(
    model: Model, method: Method, own: Benchmark, questions: Sequence[Any], given: BenchmarkSettings, done: int = 0
) -> Iterator[Result]:
    """The results of the questions, part by part, from the part of number `done` on."""
    for first in range(done * own.part, len(questions), own.part):
        yield _scored(model, method, own, questions[first : first + own.part], given)


def _scored(model, method, own, questions, given) -> Result:
    choice, notes = _choice(method, own), {}
    if own.answering is None:
        bound = model.bind(method.library, method.router)
        values, answers = likelihood.scores(model, bound, questions, choice, given.batch, given.chat)
    else:
        answers = _answers(model, method, own, questions, choice, given)
        values, notes = judged(own, questions, answers, given)
    groups = tuple(getattr(one, "group", "") for one in questions)
    return Result(own.name, own.version, own.metric, values, groups, answers, notes)


def _choice(method: Method, own: Benchmark) -> int | None:
    """The router's choice for a benchmark, where it needs one for each example."""
    if not method.needs_choice:
        return None
    choice = method.router.choice_of(own.name, method.library)
    if choice is None:
        raise InputError(
            f"benchmark {own.name!r}: the router needs the expert of each example, and no expert was trained on a task "
            "of this name; expected another router"
        )
    return choice


def _answers(model, method, own, questions, choice, given) -> list[str]:
    answering = own.answering
    prompts = [encoding.prompt(model, one.prompt, answering.max_new_tokens, given.chat) for one in questions]
    choices = None if choice is None else [choice] * len(prompts)
    request = Request(answering.max_new_tokens, stop=answering.stop, batch=given.batch)
    return continuations(model, method, prompts, choices, request)


def judged(
    own: Benchmark, questions: Sequence[Any], answers: Sequence[str], given: BenchmarkSettings
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The values of the headline, and of programs how they ended and what held them."""
    pairs = list(zip(questions, answers, strict=True))
    if not own.runs_code:
        return {own.metric: np.asarray([float(own.answering.right(answer, one)) for one, answer in pairs])}, {}
    programs = [f"{one.start}{answer}\n{one.target}" for one, answer in pairs]
    ends, isolation = from_first(lambda: _ended(programs, given.limits))
    passed = np.asarray([float(end == execution.PASSED) for end in ends])
    return {own.metric: passed}, {"ends": dict(Counter(ends).most_common()), "isolation": isolation}


def _ended(programs: list[str], limits: Limits) -> tuple[list[str], dict[str, str]]:
    """How each program ended, and what held them."""
    outcomes = execution.run(programs, limits)
    return [one.status for one in outcomes], dict(outcomes[0].isolation)
