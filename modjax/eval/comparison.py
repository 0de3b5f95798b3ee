"""Methods side by side on one part of the tasks: means, their intervals, and every pair's difference."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from modjax.eval.intervals import RESAMPLES, Paired, interval, paired, resample
from modjax.eval.score import METRICS, Score, summary


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """M methods on the same examples.

    Attributes:
      names: those methods, of the ones given, that were scored on all of the tasks.
      means: {method: {metric: mean, "examples": their number}}.
      intervals: {method: {metric: (low, high)}}, where 95 % of resampled figures lie.
      pairs: {metric: every method against every other}.
    """

    names: tuple[str, ...]
    means: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    pairs: dict[str, Paired]


def compare(
    scores: Mapping[str, Mapping[str, Score]], tasks: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Of {method: {task: score}}; methods that were not scored on all of the tasks are left out.

    Raises InputError for methods that were scored on other examples.
    """
    means = {name: found for name, own in scores.items() if (found := summary(own, tasks)) is not None}
    names = tuple(means)
    if not names:
        return Comparison((), {}, {}, {})
    figures = resample([scores[name] for name in names], tasks, resamples, seed)
    ends = {metric: interval(figures[metric]) for metric in METRICS}
    return Comparison(
        names,
        means,
        {name: {metric: tuple(map(float, ends[metric][:, i])) for metric in METRICS} for i, name in enumerate(names)},
        {metric: paired(figures[metric], np.asarray([means[name][metric] for name in names])) for metric in METRICS},
    )
