"""Bootstrap confidence intervals: examples are resampled many times, with the same draws for every method.

The figure of a method is the unweighted mean over tasks of its score on each. Examples are drawn within their task
(a stratified bootstrap), so intervals are about other examples of these tasks, not about other tasks. Methods answer
the same examples, so the interval of a difference, taken draw by draw, is much narrower than those of the figures.

    figure = 1/K sum_k score_k,  score_k = sum_i c_ki value_ki / sum_i c_ki size_ki,  c_k ~ Multinomial(n_k; 1/n_k, ...)
    interval = the 2.5th and the 97.5th percentile of the figure over draws   (Efron and Tibshirani, 1993, chapter 13)

An example's size is its number of target tokens for a metric per token, and 1 for others.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modjax import arguments, metrics
from modjax.errors import InputError
from modjax.eval.score import Score

RESAMPLES = 2000
LEVEL = 0.95
MOST = 10**7  # draws, and examples of a task


class Estimate(NamedTuple):
    """A figure, and the ends of the interval that holds 95 % of it over draws; NaN where there is none."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, drawn_S: np.ndarray) -> "Estimate":
        """The figure with the interval of its draws float64[S]; those that are not finite do not count."""
        drawn_S = drawn_S[np.isfinite(drawn_S)]
        return cls(float(value), *(map(float, interval(drawn_S)) if len(drawn_S) else (np.nan, np.nan)))

    def as_json(self) -> dict[str, float | None]:
        """The fields; None for NaN."""
        return {key: value if np.isfinite(value) else None for key, value in self._asdict().items()}


class Paired(NamedTuple):
    """Methods against each other, float64[M, M]: the row's figure minus the column's, over the same draws."""

    difference: np.ndarray
    low: np.ndarray  # the ends of the difference's interval
    high: np.ndarray
    below: np.ndarray  # the share of draws in which the difference is below 0


def draws(task: str, n_examples: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """int[resamples, n]: how often each example of a task is drawn; each row sums to n."""
    task, seed = arguments.text("task", task), arguments.seed("seed", seed)
    n_examples = arguments.whole("n_examples", n_examples, least=1, most=MOST)
    resamples = arguments.whole("resamples", resamples, least=1, most=MOST)
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    return rng.multinomial(n_examples, np.full(n_examples, 1 / n_examples), size=resamples)


def resample(
    scores: Sequence[Mapping[str, Score]], tasks: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """{metric: float64[resamples, M]}, the figure of each method on each draw.

    Args:
      scores: {task: score} of each of the M methods; each has all of the tasks, on the same examples.
      seed: the draws depend only on it and on the tasks' names.

    Raises InputError for methods that were scored on different examples.
    """
    resamples, seed = arguments.whole("resamples", resamples, least=1, most=MOST), arguments.seed("seed", seed)
    scores = arguments.items("scores", scores, "a list of {task: score}")
    tasks = arguments.texts("tasks", tasks)
    if not scores or not tasks:
        raise InputError(f"{len(scores)} methods on {len(tasks)} tasks: expected at least one of each")
    totals = {metric.name: np.zeros((resamples, len(scores))) for metric in metrics.METRICS}
    for task in tasks:
        own = [_score(by_task, task) for by_task in scores]
        _check_examples(task, own)
        counts_Sn = draws(task, own[0].examples, resamples, seed).astype(np.float64)
        for metric, figure_SM in _figures(own, counts_Sn).items():
            totals[metric] += figure_SM
    return {metric: total_SM / len(tasks) for metric, total_SM in totals.items()}


def _score(scores, task) -> Score:
    if not isinstance(scores, Mapping) or task not in scores:
        raise arguments.refused("an item of scores", scores, f"{{task: score}}, with a score of {task!r}")
    return arguments.instance(f"the score of {task!r}", scores[task], Score)


def _figures(scores, counts_Sn):
    """{metric: float64[resamples, M]} on one task."""
    figures = {}
    for metric in metrics.METRICS:
        values_nM = np.stack([score.values[metric.name] for score in scores], axis=1)
        sizes_S1 = (counts_Sn @ scores[0].sizes(metric.name))[:, None]
        figures[metric.name] = counts_Sn @ values_nM / sizes_S1
    return figures


def _check_examples(task, scores):
    for score in scores[1:]:
        if not np.array_equal(score.targets_n, scores[0].targets_n):
            raise InputError(
                f"task {task!r}: methods were scored on {scores[0].examples} and {score.examples} examples, which "
                "differ; expected the same split, seed and tokenizer for all methods"
            )


def interval(drawn: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """float64[2, ...], the ends of the central interval that holds `level` of the draws float64[resamples, ...]."""
    return np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)], axis=0)


def paired(figure_SM: np.ndarray, figure_M: np.ndarray, level: float = LEVEL) -> Paired:
    """Compares every method with every other.

    Args:
      figure_SM: one metric of `resample`.
      figure_M: the figures on the examples themselves.
    """
    gap_SMM = figure_SM[:, :, None] - figure_SM[:, None, :]
    low_MM, high_MM = interval(gap_SMM, level)
    return Paired(figure_M[:, None] - figure_M[None, :], low_MM, high_MM, (gap_SMM < 0).mean(axis=0))
