"""Scores: their means, their form in JSON files, and a metric that is added."""

import json

import numpy as np
import pytest

from modjax import metrics
from modjax.errors import InputError
from modjax.eval import Metric, Sample, Score, compare, evaluate, summary
from modjax.eval.score import as_json, from_json
from modjax.report import text_table
from modjax.report.page import render
from modjax.routing import uniform
from modjax.studies import results

SETTINGS = {"sample": Sample(length=32), "max_new_tokens": 3, "progress": False}


@pytest.fixture(scope="module")
def scores(model, tasks):
    return evaluate(model, tasks.select(["a", "b"]), **SETTINGS)


def test_a_mean_is_over_target_tokens_or_over_examples():
    values = {"loss": np.array([3.0, 1.0]), "exact_match": np.array([1.0, 0.0]), "rouge_l": np.array([0.5, 0.25])}
    score = Score(values, np.array([3, 5]))
    assert [score[metric] for metric in values] == [4 / 8, 1 / 2, 0.75 / 2]


def test_summary_is_the_unweighted_mean_over_tasks(scores):
    means = summary(scores, ["a", "b"])
    assert means["loss"] == pytest.approx((scores["a"]["loss"] + scores["b"]["loss"]) / 2)
    assert means["examples"] == 20
    assert summary(scores, ["a", "elsewhere"]) is None


def test_scores_survive_json(scores):
    value = json.loads(json.dumps(as_json(scores)))
    again, own = from_json(value)["b"], value["tasks"]["b"]
    np.testing.assert_allclose(again.values["loss"], scores["b"].values["loss"], atol=1e-6)
    assert again.as_json()["each"] == own["each"]
    assert own["loss"] == pytest.approx(again["loss"], abs=1e-6)
    assert (again.examples, again["exact_match"], again["rouge_l"]) == (10, own["exact_match"], own["rouge_l"])


@pytest.mark.parametrize("metric", ["loss", "rouge_l", "targets"])
def test_scores_of_other_versions_are_refused(scores, metric):
    value = scores["b"].as_json()
    del value["each"][metric]
    with pytest.raises(InputError, match=f"has no {metric} under .*delete them and evaluate again"):
        Score.from_json(value)
    for broken in ({}, {"each": 3}, 1.5):
        with pytest.raises(InputError, match="has no loss, exact_match, rouge_l, targets"):
            Score.from_json(broken)


def test_a_new_metric_is_added_in_one_place(model, library, tasks, monkeypatch):
    """The length of answers, in scores, their files, means, intervals, comparisons, and in the report."""
    length = Metric("length", "answer length", "Length", "words", "lower", of_answer=lambda one, _: len(one.split()))
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, length))
    by_method = {
        "base": evaluate(model, tasks, **SETTINGS),
        "mu": evaluate(model, tasks, library, uniform(library), **SETTINGS),
    }
    score = by_method["mu"]["a"]
    assert score["length"] == score.values["length"].mean() and 0 < score["length"] <= 3
    again = Score.from_json(json.loads(json.dumps(score.as_json())))
    assert again["length"] == pytest.approx(score["length"])
    found = compare(by_method, ["a", "b"], resamples=20)
    low, high = found.intervals["mu"]["length"]
    assert low <= found.means["mu"]["length"] <= high
    gap = found.means["base"]["length"] - found.means["mu"]["length"]
    assert found.pairs["length"].difference[0, 1] == pytest.approx(gap)
    compared = results.comparisons(by_method, tasks)
    report = {
        "methods": [results.method(name, "", compared) for name in by_method],
        "paired": results.paired(compared),
        "tasks": [results.task(task, by_method) for task in tasks.values()],
    }
    assert {pair["metric"] for pair in report["paired"]} == {"loss", "exact_match", "rouge_l", "length"}
    text, page = " ".join(text_table(report).split()), render(report)
    figure = f"{report['methods'][1]['in_distribution']['length']:.3f}"
    assert text.count("Length") == 2 and figure in text
    assert "answer length in words" in text and "Answer length is in words, lower is better." in page
    assert 'value="length"' in page and f">{score['length']:.3f}</span>" in page
