"""The hierarchical bootstrap against a loop over its draws, and against what is known of its limits."""

import numpy as np
import pytest

from modjax.errors import InputError
from modjax.eval.hierarchy import Figures
from modjax.eval.intervals import draws, interval, resample
from modjax.eval.score import Score, summary

TASKS = {"a": 5, "b": 9, "c": 7}


def _score(values_n, targets_n):
    nats_n = np.asarray(values_n, np.float64)
    return Score({"loss": nats_n * targets_n, "exact_match": nats_n > 1, "rouge_l": nats_n / 9}, np.asarray(targets_n))


def _runs(seeds=3, noise=0.5):
    rng = np.random.default_rng(0)
    targets = {task: rng.integers(1, 6, n) for task, n in TASKS.items()}
    hard = {task: rng.gamma(2.0, 1.0) + rng.random(n) for task, n in TASKS.items()}
    return [
        {
            method: {task: _score(hard[task] + gap + noise * rng.random(n), targets[task]) for task, n in TASKS.items()}
            for method, gap in (("one", 0.0), ("two", 0.3), ("three", 1.0))
        }
        for _ in range(seeds)
    ]


def test_every_draw_equals_a_loop_over_seeds_and_tasks():
    runs, names, D = _runs(), ("one", "two"), 20
    found = Figures(runs, names, list(TASKS), draws=D, seed=4)
    rng = np.random.default_rng([4, len(runs), len(TASKS)])
    seeds_D = rng.multinomial(3, [1 / 3] * 3, size=D)
    tasks_D = rng.multinomial(3, [1 / 3] * 3, size=D)
    counts = {task: draws(task, n, D, seed=4) for task, n in TASKS.items()}
    for m, name in enumerate(names):
        for d in range(D):
            total = 0.0
            for s, times in enumerate(seeds_D[d]):
                for k, (task, own) in enumerate(counts.items()):
                    score = runs[s][name][task]
                    drawn = (own[d] * score.values["loss"]).sum() / (own[d] * score.targets_n).sum()
                    total += times * tasks_D[d, k] * drawn / 9
            assert found.drawn["loss"][d, m] == pytest.approx(total, rel=1e-12)
        expected = np.mean([summary(run[name], list(TASKS))["loss"] for run in runs])
        assert found.mean("loss", name).value == pytest.approx(expected, rel=1e-12)


def test_a_constant_difference_has_an_interval_of_no_width_and_its_sign():
    found = Figures(_runs(noise=0.0), ("one", "two", "three"), list(TASKS))
    assert found.difference("loss", "two", "one") == pytest.approx((0.3, 0.3, 0.3))
    assert found.difference("loss", "two", "two") == (0.0, 0.0, 0.0)
    assert found.share("loss", "two", "three", "one") == pytest.approx((0.7, 0.7, 0.7))
    assert found.combined("loss", {"one": 0.5, "three": 0.5}).value == pytest.approx(
        (found.mean("loss", "one").value + found.mean("loss", "three").value) / 2
    )


def test_tasks_that_differ_widen_the_interval_beyond_that_of_examples():
    runs = _runs(seeds=1)
    one = Figures(runs, ("one",), list(TASKS)).mean("loss", "one")
    low, high = interval(resample([runs[0]["one"]], list(TASKS))["loss"])[:, 0]
    assert one.high - one.low > 2 * (high - low)


def test_fixed_tasks_are_in_every_draw():
    """With one seed and fixed tasks, the draws are those of examples alone."""
    runs = _runs(seeds=1)
    found = Figures(runs, ("one",), list(TASKS), draws=30, fixed=True)
    expected = resample([runs[0]["one"]], list(TASKS), 30)["loss"]
    np.testing.assert_allclose(found.drawn["loss"], expected, rtol=1e-12)


def test_one_seed_is_not_resampled_and_three_equal_ones_give_the_same():
    run = _runs(seeds=1)
    alone, thrice = (Figures(runs, ("one",), list(TASKS)).mean("loss", "one") for runs in (run, run * 3))
    assert alone.value == pytest.approx(thrice.value)
    assert alone.high - alone.low == pytest.approx(thrice.high - thrice.low, rel=0.1)


def test_what_is_missing_is_named():
    runs = _runs(seeds=2)
    with pytest.raises(InputError, match="run 1 has no scores of method 'two'"):
        Figures([runs[0], {"one": runs[1]["one"]}], ("one", "two"), ["a"])
    with pytest.raises(InputError, match="0 runs, 1 methods, 1 tasks: expected one of each"):
        Figures([], ("one",), ["a"])
