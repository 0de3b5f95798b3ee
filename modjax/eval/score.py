"""Scores of a method on a task, example by example, so that methods can be compared on the same examples."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modjax import arguments, metrics
from modjax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """One method on the n examples of one task; `score["loss"]` is the mean of a metric.

    Attributes:
      values: {metric: float64[n]}, the value of each example; for a metric per token, as the loss, in nats, the sum
        over the example's target tokens.
      targets_n: int[n], the number of target tokens of each example.
    """

    values: Mapping[str, np.ndarray]
    targets_n: np.ndarray

    def __getitem__(self, metric: str) -> float:
        """The mean over all target tokens of the task, or over examples, as the metric says."""
        return float(self.values[metric].sum() / self.sizes(metric).sum())

    def sizes(self, metric: str) -> np.ndarray:
        """int[n], the number of units that each example counts for: its target tokens, or 1."""
        return self.targets_n if metrics.named(metric).per == "token" else np.ones_like(self.targets_n)

    @property
    def examples(self) -> int:
        return len(self.targets_n)

    def as_json(self) -> dict[str, Any]:
        """{metric: mean, "examples": n, "each": {metric: [n values], "targets": [n]}}, values to a millionth."""
        means = {metric.name: self[metric.name] for metric in metrics.METRICS}
        each = {metric.name: self.values[metric.name].round(6).tolist() for metric in metrics.METRICS}
        return means | {"examples": self.examples, "each": each | {"targets": self.targets_n.tolist()}}

    @classmethod
    def of_right(cls, right_n: np.ndarray | Sequence[float]) -> "Score":
        """The score of n questions that have no other metric than whether they were answered right, 1 or 0."""
        right_n = np.asarray(right_n, np.float64)
        nothing = {metric.name: np.zeros_like(right_n) for metric in metrics.METRICS}
        return cls(nothing | {metrics.EXACT_MATCH.name: right_n}, np.ones(len(right_n), int))

    @classmethod
    def from_json(cls, value: Any) -> "Score":
        """The score that `as_json` wrote. Raises InputError where a metric of the examples is missing."""
        each = value.get("each") if isinstance(value, Mapping) else None
        found = set(each) if isinstance(each, Mapping) else set()
        names = [metric.name for metric in metrics.METRICS]
        if missing := [name for name in (*names, "targets") if name not in found]:
            raise InputError(
                f"a score has no {', '.join(missing)} under 'each'; expected the values of each example. Files of "
                "another version of modjax may lack them: delete them and evaluate again"
            )
        return cls({name: np.asarray(each[name], np.float64) for name in names}, np.asarray(each["targets"]))


def joined(scores: Sequence[Score]) -> Score:
    """The score of all examples of several scores, one after another."""
    names = [metric.name for metric in metrics.METRICS]
    values = {name: np.concatenate([score.values[name] for score in scores]) for name in names}
    return Score(values, np.concatenate([score.targets_n for score in scores]))


def as_json(scores: Mapping[str, Score]) -> dict[str, Any]:
    """{"tasks": {task: its score}}, the form of every file of scores."""
    return {"tasks": {task: score.as_json() for task, score in scores.items()}}


def from_json(value: Mapping[str, Any]) -> dict[str, Score]:
    """{task: score} of a value that `as_json` gave. Raises InputError as `Score.from_json`."""
    return {task: Score.from_json(score) for task, score in value["tasks"].items()}


def summary(scores: Mapping[str, Score], tasks: Sequence[str]) -> dict[str, float] | None:
    """{metric: unweighted mean over the tasks, "examples": their total}; None unless all tasks were scored."""
    tasks = arguments.texts("tasks", tasks)
    scores = arguments.mapping("scores", scores, "{task: score}")
    if not tasks or any(task not in scores for task in tasks):
        return None
    own = [arguments.instance(f"scores[{task!r}]", scores[task], Score) for task in tasks]
    means = {metric.name: float(np.mean([score[metric.name] for score in own])) for metric in metrics.METRICS}
    return means | {"examples": sum(score.examples for score in own)}
