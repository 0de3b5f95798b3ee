"""Comparison of methods on the same tasks: means, their intervals, and the difference of every pair."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from modjax import arguments
from modjax.eval.intervals import RESAMPLES, Paired, interval, paired, resample
from modjax.eval.score import Score, summary


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """M methods on the same examples.

    Attributes:
      names: the methods that were scored on all of the tasks.
      means: {method: {metric: mean over tasks, "examples": their number}}.
      intervals: {method: {metric: (low, high)}}, the ends of the 95 % intervals.
      pairs: {metric: differences of every two methods}.
    """

    names: tuple[str, ...]
    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    pairs: dict[str, Paired]


def compare(
    scores: Mapping[str, Mapping[str, Score]], tasks: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compares methods, {method: {task: score}}; those that were not scored on all of the tasks are left out.

    Raises InputError for methods that were scored on different examples.
    """
    tasks = arguments.texts("tasks", tasks)
    scores = arguments.mapping("scores", scores, "{method: {task: score}}")
    means = {name: found for name, own in scores.items() if (found := summary(own, tasks)) is not None}
    names = tuple(means)
    if not names:
        return Comparison((), {}, {}, {})
    figures = resample([scores[name] for name in names], tasks, resamples, seed)
    ends = {metric: interval(figure_SM) for metric, figure_SM in figures.items()}
    return Comparison(
        names,
        means,
        {name: {metric: tuple(map(float, ends[metric][:, i])) for metric in ends} for i, name in enumerate(names)},
        {metric: paired(figures[metric], np.asarray([means[name][metric] for name in names])) for metric in figures},
    )
