"""Results: standard errors, JSON, parts put together, the mean of benchmarks, and draws for intervals."""

import dataclasses
import json

import numpy as np
import pytest

from modjax.errors import InputError
from modjax.eval.benchmarks.result import Result, joined, mean, resample
from modjax.eval.intervals import interval, paired


def _result(name="piqa", n=12, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    values = {metric: np.float64(rng.integers(0, 2, n)) for metric in ("acc", "acc_token")}
    return Result(name, 1, "acc_token", values, groups or ("",) * n, [[-1.5, -2.0]] * n, {"ends": {"passed": 1}})


def test_standard_errors_are_those_of_the_harness():
    from lm_eval.api.metrics import mean_stderr

    one = _result()
    assert one.error() == pytest.approx(mean_stderr(one.values["acc_token"].tolist()))
    assert one.error("acc") == pytest.approx(mean_stderr(one.values["acc"].tolist()))
    assert _result(n=1).error() == 0


def test_json_keeps_all():
    one = _result(groups=("a", "b") * 6)
    again = Result.from_json(json.loads(json.dumps(one.as_json())))
    assert again.as_json() == one.as_json()
    assert {name: own.tolist() for name, own in again.values.items()} == {k: v.tolist() for k, v in one.values.items()}
    assert one.as_json()["groups"] == {group: one.values["acc_token"][i::2].mean() for i, group in enumerate("ab")}


def test_parts_are_put_together():
    parts = [_result(n=4, seed=1, groups=("a",) * 4), _result(n=3, seed=2, groups=("b",) * 3)]
    whole = joined(parts)
    assert whole.examples == 7 == len(whole.answers) and whole.groups == ("a",) * 4 + ("b",) * 3
    assert whole.headline == pytest.approx((4 * parts[0].headline + 3 * parts[1].headline) / 7)
    assert mean({"a": parts[0], "b": parts[1]}) == pytest.approx((parts[0].headline + parts[1].headline) / 2)


def test_what_parts_note_of_programs_is_added_up():
    parts = [dataclasses.replace(_result(n=2), notes={"ends": own, "isolation": {"files": "x"}})
             for own in ({"passed": 1, "time": 1}, {"failed": 1, "passed": 1})]  # fmt: skip
    assert joined(parts).notes == {"ends": {"passed": 2, "time": 1, "failed": 1}, "isolation": {"files": "x"}}


def test_draws_are_shared_by_methods_and_centre_on_their_means():
    one = {name: _result(name, n, seed) for name, n, seed in (("piqa", 300, 1), ("boolq", 200, 2))}
    two = {name: _result(name, n, seed) for name, n, seed in (("piqa", 300, 3), ("boolq", 200, 4))}
    figure_SM = resample([one, two, one], resamples=400, seed=5)
    assert figure_SM.shape == (400, 3) and np.array_equal(figure_SM[:, 0], figure_SM[:, 2])
    np.testing.assert_allclose(figure_SM.mean(0)[:2], [mean(one), mean(two)], atol=0.01)
    low, high = interval(figure_SM[:, 0])
    errors = [own.error() for own in one.values()]
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(np.sum(np.square(errors))) / 2, rel=0.2)
    gaps = paired(figure_SM, np.asarray([mean(one), mean(two), mean(one)]))
    assert gaps.difference[0, 2] == gaps.low[0, 2] == gaps.high[0, 2] == 0
    assert np.array_equal(figure_SM, resample([one, two, one], resamples=400, seed=5))


def test_methods_of_different_questions_are_not_compared():
    one = {"piqa": _result()}
    with pytest.raises(InputError, match="benchmark 'piqa': results of different questions or versions"):
        resample([one, {"piqa": _result(n=11)}])
    with pytest.raises(InputError, match="benchmark 'piqa': results of different questions or versions"):
        resample([one, {"piqa": dataclasses.replace(_result(), version=2)}])
    with pytest.raises(InputError, match="scored on different benchmarks"):
        resample([one, {"boolq": _result()}])
    with pytest.raises(InputError, match="expected at least one method"):
        resample([])
    with pytest.raises(InputError, match="expected at least one result"):
        mean({})
