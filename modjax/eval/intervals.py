"""How sure a comparison is: examples are drawn anew many times, the same draws for every method.

The figure of a method is the unweighted mean over tasks of its score on each. Examples are drawn within their task
(a stratified bootstrap), so intervals are about other examples of these tasks, not about other tasks. Since methods
answer the same examples, their difference is far surer than either figure, and is looked at draw by draw.

    figure = 1/K sum_k loss_k,  loss_k = sum_i c_ki nats_ki / sum_i c_ki targets_ki,  c_k ~ Multinomial(n_k; 1/n_k, ...)
    interval = the 2.5th and the 97.5th percentile of the figure over draws   (Efron and Tibshirani, 1993, chapter 13)
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from modjax.errors import InputError
from modjax.eval.score import METRICS, Score

RESAMPLES = 2000
LEVEL = 0.95


class Paired(NamedTuple):
    """Methods against each other, float64[M, M]: the row's figure less the column's, over the same draws."""

    difference: np.ndarray
    low: np.ndarray  # the ends of its interval
    high: np.ndarray
    below: np.ndarray  # the share of draws in which it is below 0


def draws(task: str, n_examples: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """int[resamples, n]: how often each example of a task is drawn; each row sums to n."""
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])
    return rng.multinomial(n_examples, np.full(n_examples, 1 / n_examples), size=resamples)


def resample(
    scores: Sequence[Mapping[str, Score]], tasks: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """{metric: float64[resamples, M]}, the figure of each method on each draw.

    Args:
      scores: {task: score} of each of the M methods; all have all of the tasks, on the same examples.
      seed: the draws depend on it and on the tasks' names alone.

    Raises InputError for methods that were scored on other examples.
    """
    if not scores or not tasks:
        raise InputError(f"{len(scores)} methods on {len(tasks)} tasks: expected at least one of each")
    totals = {metric: np.zeros((resamples, len(scores))) for metric in METRICS}
    for task in tasks:
        own = [by_task[task] for by_task in scores]
        _check_examples(task, own)
        counts_Sn = draws(task, own[0].examples, resamples, seed).astype(np.float64)
        for metric, figure_SM in _figures(own, counts_Sn).items():
            totals[metric] += figure_SM
    return {metric: total_SM / len(tasks) for metric, total_SM in totals.items()}


def _figures(scores, counts_Sn):
    targets_S1 = (counts_Sn @ scores[0].targets_n)[:, None]
    drawn_S1 = counts_Sn.sum(axis=1, keepdims=True)

    def summed(field):
        return counts_Sn @ np.stack([getattr(score, field) for score in scores], axis=1)

    return {
        "loss": summed("nats_n") / targets_S1,
        "exact_match": summed("exact_n") / drawn_S1,
        "rouge_l": summed("rouge_n") / drawn_S1,
    }


def _check_examples(task, scores):
    for score in scores[1:]:
        if not np.array_equal(score.targets_n, scores[0].targets_n):
            raise InputError(
                f"task {task!r}: methods were scored on {scores[0].examples} and {score.examples} examples, or on "
                "others; expected the same split, seed and tokenizer for all"
            )


def interval(figure_SM: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """float64[2, M], the percentiles that hold `level` of the draws, as much on either side."""
    return np.percentile(figure_SM, [50 * (1 - level), 50 * (1 + level)], axis=0)


def paired(figure_SM: np.ndarray, figure_M: np.ndarray, level: float = LEVEL) -> Paired:
    """Every method against every other.

    Args:
      figure_SM: one metric of `resample`.
      figure_M: the figures of the sample itself.
    """
    gap_SMM = figure_SM[:, :, None] - figure_SM[:, None, :]
    low_MM, high_MM = np.percentile(gap_SMM, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return Paired(figure_M[:, None] - figure_M[None, :], low_MM, high_MM, (gap_SMM < 0).mean(axis=0))
