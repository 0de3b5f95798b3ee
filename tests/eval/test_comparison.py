"""The contents of a comparison, and the methods that it leaves out."""

import numpy as np
import pytest

from modjax.eval.comparison import compare
from modjax.eval.score import Score, summary


def _score(seed, n=10):
    rng = np.random.default_rng(seed)
    values = {"loss": rng.random(n), "exact_match": np.float64(rng.random(n) > 0.5), "rouge_l": rng.random(n)}
    return Score(values, np.full(n, 2))


@pytest.fixture
def scores():
    return {
        "base": {"a": _score(0), "b": _score(1)},
        "oracle": {"a": _score(2)},
        "arrow": {"a": _score(3), "b": _score(4)},
    }


def test_methods_that_lack_a_task_are_left_out(scores):
    found = compare(scores, ["a", "b"], resamples=20)
    assert found.names == ("base", "arrow")
    assert set(found.means) == set(found.intervals) == {"base", "arrow"}
    assert found.pairs["loss"].difference.shape == (2, 2)
    assert compare(scores, ["a"], resamples=20).names == ("base", "oracle", "arrow")


def test_means_lie_within_their_intervals_and_differences_are_theirs(scores):
    found = compare(scores, ["a", "b"])
    for name in found.names:
        assert found.means[name] == summary(scores[name], ["a", "b"])
        for metric, (low, high) in found.intervals[name].items():
            assert low < found.means[name][metric] < high
    gap = found.means["base"]["rouge_l"] - found.means["arrow"]["rouge_l"]
    assert found.pairs["rouge_l"].difference[0, 1] == pytest.approx(gap)


def test_without_scored_methods_the_comparison_is_empty(scores):
    assert compare(scores, []).names == ()
    assert compare({"oracle": scores["oracle"]}, ["a", "b"]).names == ()
