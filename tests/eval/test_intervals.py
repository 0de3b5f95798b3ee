"""Intervals and paired comparisons against a slow reference, scipy's bootstrap and closed forms."""

import numpy as np
import pytest
import scipy.stats
from references import evaluation

from modjax.errors import InputError
from modjax.eval.intervals import draws, interval, paired, resample
from modjax.eval.score import Score, summary

TASKS = {"a": 12, "b": 20}
PER_TOKEN = {"loss": True, "exact_match": False, "rouge_l": False}


@pytest.fixture(scope="module")
def scores():
    """Three methods on two tasks; the second is slightly worse than the first, the third is much worse."""
    rng = np.random.default_rng(0)
    methods = [{}, {}, {}]
    for task, n in TASKS.items():
        targets_n, hard_n = rng.integers(1, 9, n), rng.gamma(2.0, 0.5, n)
        for method, extra in zip(methods, (0.0, 0.02, 1.0), strict=True):
            nats_n = targets_n * (hard_n + extra + 0.01 * rng.random(n))
            rouge_n = np.clip(1 - 0.3 * hard_n - 0.2 * extra, 0, 1)
            values = {"loss": nats_n, "exact_match": np.float64(rouge_n > 0.7), "rouge_l": rouge_n}
            method[task] = Score(values, targets_n)
    return methods


def _pairs(by_task, metric):
    scores = by_task.values()
    return [(one.values[metric], one.targets_n if PER_TOKEN[metric] else np.ones(one.examples)) for one in scores]


@pytest.mark.parametrize("metric", PER_TOKEN)
def test_figures_of_every_draw_agree_with_a_loop(scores, metric, agrees):
    figure_SM = resample(scores, list(TASKS), resamples=50, seed=3)[metric]
    drawn = [draws(task, n, 50, seed=3) for task, n in TASKS.items()]
    expected_SM = [
        [evaluation.figure(_pairs(by_task, metric), counts) for by_task in scores]
        for counts in zip(*drawn, strict=True)
    ]
    agrees("bootstrap, figures", figure_SM, expected_SM)
    ends = [[evaluation.percentile(column, share) for column in np.transpose(expected_SM)] for share in (0.025, 0.975)]
    agrees("bootstrap, intervals", interval(figure_SM), ends)


@pytest.mark.parametrize("metric", PER_TOKEN)
def test_point_figures_agree(scores, metric, agrees):
    got = [summary(by_task, list(TASKS))[metric] for by_task in scores]
    everything = [np.ones(n) for n in TASKS.values()]
    agrees("mean over tasks", got, [evaluation.figure(_pairs(by_task, metric), everything) for by_task in scores])


def test_draws_are_seeded_by_task_and_keep_the_size():
    counts = draws("a", 12, 100, seed=1)
    assert (counts.sum(axis=1) == 12).all()
    assert (counts == draws("a", 12, 100, seed=1)).all()
    assert (counts != draws("b", 12, 100, seed=1)).any() and (counts != draws("a", 12, 100, seed=2)).any()


def test_interval_agrees_with_scipy(scores):
    """Another generator's draws: ends may differ by the error of 2,000 draws, a few hundredths of the width."""
    own = list(scores[0].values())

    def statistic(*ids):
        drawn = [(s.values["loss"][i.astype(int)], s.targets_n[i.astype(int)]) for s, i in zip(own, ids, strict=True)]
        return np.mean([nats_n.sum() / targets_n.sum() for nats_n, targets_n in drawn])

    found = scipy.stats.bootstrap(
        [np.arange(n) for n in TASKS.values()], statistic, n_resamples=2000, vectorized=False, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    got = interval(resample(scores[:1], list(TASKS))["loss"])[:, 0]
    assert np.abs(got - np.asarray(found)).max() < 0.12 * (found.high - found.low)


def test_interval_of_a_mean_is_near_its_closed_form():
    """For one task and one target token per example: mean +- 1.96 standard errors."""
    nats_n = np.random.default_rng(0).normal(3.0, 1.0, 400)
    score = Score({"loss": nats_n, "exact_match": nats_n * 0, "rouge_l": nats_n * 0}, np.ones(400, int))
    low, high = interval(resample([{"a": score}], ["a"])["loss"])[:, 0]
    half = 1.96 * nats_n.std() / 400**0.5
    assert (low, high) == pytest.approx((nats_n.mean() - half, nats_n.mean() + half), abs=0.1 * half)


def test_paired_differences_have_narrower_intervals_than_figures(scores):
    figure_SM = resample(scores, list(TASKS))["loss"]
    figure_M = np.asarray([summary(by_task, list(TASKS))["loss"] for by_task in scores])
    found = paired(figure_SM, figure_M)
    width = np.diff(interval(figure_SM), axis=0)[0]
    assert found.high[0, 1] - found.low[0, 1] < 0.1 * width[0]
    assert found.high[0, 1] < 0 and found.below[0, 1] == 1 and found.below[1, 0] == 0
    np.testing.assert_allclose(found.difference, -found.difference.T)
    np.testing.assert_allclose(found.low, -found.high.T)
    assert (found.below.diagonal() == 0).all()


def test_the_draws_of_a_method_do_not_depend_on_other_methods(scores):
    alone, together = resample(scores[1:2], list(TASKS)), resample(scores, list(TASKS))
    np.testing.assert_allclose(alone["loss"][:, 0], together["loss"][:, 1], rtol=1e-12)


def test_different_examples_cannot_be_compared(scores):
    other = {"a": scores[0]["b"], "b": scores[0]["b"]}
    with pytest.raises(InputError, match="'a': methods were scored on 12 and 20 examples"):
        resample([scores[0], other], ["a"])
    with pytest.raises(InputError, match="at least one"):
        resample([], ["a"])
