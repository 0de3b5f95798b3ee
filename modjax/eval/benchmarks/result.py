"""Results of benchmarks, example by example, with their standard errors, intervals, and the mean of all benchmarks."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.eval import intervals
from modjax.eval.intervals import MOST, RESAMPLES
from modjax.eval.score import Score
from modjax.metrics import EXACT_MATCH


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """One model, or one routed library, on the n questions of a benchmark.

    Attributes:
      name, version: those of the benchmark.
      metric: the headline, one of `values`.
      values: {metric: float64[n]}, 1 for a right answer, else 0; see `modjax.eval.benchmarks.likelihood.METRICS`.
      groups: n names of tasks within the benchmark, as of BBH; "" where there are none.
      answers: for each question the log-likelihoods of its choices, or the text of the answer.
      notes: of programs that were run, how many ended in which way, {"ends": {status: number}}, and what held them.
    """

    name: str
    version: int
    metric: str
    values: Mapping[str, np.ndarray]
    groups: tuple[str, ...]
    answers: list[Any]
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __getitem__(self, metric: str) -> float:
        """The mean of a metric over questions."""
        return float(self.values[metric].mean())

    @property
    def headline(self) -> float:
        return self[self.metric]

    @property
    def examples(self) -> int:
        return len(self.groups)

    def error(self, metric: str | None = None) -> float:
        """The standard error of a mean, from the deviation of the sample, as in lm-evaluation-harness; 0 for n = 1."""
        values_n = self.values[metric or self.metric]
        return float(values_n.std(ddof=1) / np.sqrt(len(values_n))) if len(values_n) > 1 else 0.0

    def score(self) -> Score:
        """The headline as the exact match of each question, for the intervals of `modjax.eval`."""
        return Score.of_right(self.values[self.metric])

    def by_group(self) -> dict[str, float]:
        """{task: mean of the headline} of a benchmark of several tasks."""
        names, values_n = np.asarray(self.groups), self.values[self.metric]
        return {name: float(values_n[names == name].mean()) for name in dict.fromkeys(self.groups) if name}

    def as_json(self) -> dict[str, Any]:
        """The means, their standard errors, and under "each" what every question was answered."""
        means = {metric: self[metric] for metric in self.values}
        errors = {f"{metric}_error": self.error(metric) for metric in self.values}
        each = {metric: values_n.astype(int).tolist() for metric, values_n in self.values.items()}
        return {
            **{"name": self.name, "version": self.version, "metric": self.metric, "examples": self.examples},
            **means,
            **errors,
            "groups": self.by_group(),
            "notes": dict(self.notes),
            "each": {"values": each, "groups": list(self.groups), "answers": self.answers},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Result":
        """The result that `as_json` wrote."""
        each = value["each"]
        values = {metric: np.asarray(own, np.float64) for metric, own in each["values"].items()}
        about = (value["name"], value["version"], value["metric"])
        return cls(*about, values, tuple(each["groups"]), each["answers"], value["notes"])


def joined(parts: Sequence[Result]) -> Result:
    """The result on the questions of all parts of one benchmark."""
    first = parts[0]
    values = {metric: np.concatenate([part.values[metric] for part in parts]) for metric in first.values}
    groups = tuple(name for part in parts for name in part.groups)
    answers = [one for part in parts for one in part.answers]
    ends = sum((Counter(part.notes.get("ends", {})) for part in parts), Counter())
    notes = dict(first.notes) | ({"ends": dict(ends)} if ends else {})
    return dataclasses.replace(first, values=values, groups=groups, answers=answers, notes=notes)


def mean(results: Mapping[str, Result]) -> float:
    """The unweighted mean of the headlines of several benchmarks."""
    results = _checked("results", results)
    return float(np.mean([one.headline for one in results.values()]))


def resample(results: Sequence[Mapping[str, Result]], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """float64[resamples, M]: the mean over benchmarks of each of M methods, on the same draws of questions for all.

    For `modjax.eval.intervals.interval`, and for `paired`, which compares the methods.

    Args:
      results: {benchmark: result} of each method, all of the same benchmarks and questions.

    Raises InputError for methods with other benchmarks, versions or numbers of questions.
    """
    resamples, seed = arguments.whole("resamples", resamples, least=1, most=MOST), arguments.seed("seed", seed)
    methods = [_checked("an item of results", one) for one in arguments.items("results", results, "[{name: Result}]")]
    if not methods:
        raise arguments.refused("results", results, "at least one method")
    if len({frozenset(method) for method in methods}) > 1:
        raise InputError("results: methods were scored on different benchmarks; expected the same")
    for name, first in methods[0].items():
        for one in (method[name] for method in methods):
            if (one.version, one.metric, one.groups) != (first.version, first.metric, first.groups):
                raise InputError(f"benchmark {name!r}: results of different questions or versions; expected the same")
    scores = [{name: one.score() for name, one in method.items()} for method in methods]
    return intervals.resample(scores, list(methods[0]), resamples, seed)[EXACT_MATCH.name]


def _checked(name, results) -> dict[str, Result]:
    results = arguments.mapping(name, results, "{benchmark: Result}")
    if not results:
        raise arguments.refused(name, results, "at least one result")
    return {key: arguments.instance(f"{name}[{key!r}]", one, Result) for key, one in results.items()}
