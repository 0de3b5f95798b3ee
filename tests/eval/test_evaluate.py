"""Evaluation on a tiny model: scores against a slow reference, and what they must not depend on."""

import json

import numpy as np
import pytest

from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval import Method, Score, evaluate, summary
from modjax.eval.evaluate import prepared, sample
from modjax.eval.likelihood import target_loss
from modjax.eval.traces import routing_weights, view
from modjax.routing import arrow, oracle, uniform

SETTINGS = dict(length=32, max_new_tokens=3, progress=False)


def _reference_loss(model, library, router, task, example):
    (one,) = encode(model.tokenizer, task, [example], 32)
    logits_TV = np.asarray(model.logits(one.tokens[None], library, router)[0], np.float64)
    log_probs_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
    at = np.arange(one.n_prompt, len(one.tokens))
    return -log_probs_TV[at - 1, one.tokens[at]].sum(), len(at)


@pytest.mark.parametrize("make", [uniform, arrow])
def test_loss_equals_a_row_by_row_reference(model, library, tasks, make):
    router = make(library)
    scores, _ = evaluate(model, Method("m", library, router), tasks, **SETTINGS)
    for name, task in tasks.items():
        sums, counts = zip(
            *(_reference_loss(model, library, router, task, one) for one in task.split("test")), strict=True
        )
        assert scores[name].loss == pytest.approx(sum(sums) / sum(counts), abs=1e-5)
        assert scores[name].examples == 10


def test_scores_do_not_depend_on_the_batch_size(model, library, tasks):
    method = Method("m", library, arrow(library, top_k=2))
    small, _ = evaluate(model, method, tasks, examples=4, batch=3, **SETTINGS)
    large, _ = evaluate(model, method, tasks, examples=4, batch=16, **SETTINGS)
    for name in tasks:
        assert small[name].loss == pytest.approx(large[name].loss, abs=1e-6)
        assert (small[name].exact_match, small[name].rouge_l) == (large[name].exact_match, large[name].rouge_l)


def test_oracle_gives_each_task_its_own_expert_and_leaves_others_out(model, library, tasks):
    scores, _ = evaluate(model, Method("oracle", library, oracle(library)), tasks, **SETTINGS)
    assert set(scores) == {"a", "b", "c"}
    alone, _ = evaluate(model, Method("b", library["b"]), tasks.select(["b"]), **SETTINGS)
    assert scores["b"].loss == pytest.approx(alone["b"].loss, abs=1e-5)


def test_losses_come_back_in_the_order_asked_for(model, tasks):
    encoded = encode(model.tokenizer, tasks["a"], tasks["a"].split("test"), 32)
    totals, counts = target_loss(model, encoded, batch=4)
    backwards, _ = target_loss(model, encoded[::-1], batch=4)
    np.testing.assert_allclose(totals, backwards[::-1], atol=1e-5)
    assert counts.tolist() == [2] * 10  # "yes" and the end of turn


def test_sample_goes_by_seed_and_index(tasks):
    assert sample(tasks["a"], "test", 4, seed=0) == sample(tasks["a"], "test", 4, seed=0)
    assert sample(tasks["a"], "test", 4, seed=0) != sample(tasks["a"], "test", 4, seed=1)
    assert sample(tasks["a"], "test", 0, seed=0) == tasks["a"].split("test")
    with pytest.raises(InputError, match="'a'.*'validation'"):
        sample(tasks["a"], "validation", 4, seed=0)


def test_summary_is_the_unweighted_mean_over_tasks(model, tasks):
    scores, _ = evaluate(model, Method("base"), tasks, **SETTINGS)
    means = summary(scores, ["a", "b"])
    assert means["loss"] == pytest.approx((scores["a"].loss + scores["b"].loss) / 2)
    assert means["examples"] == 20
    assert summary(scores, ["a", "elsewhere"]) is None


def test_routing_weights_are_means_over_sites_and_sum_to_one(model, library, tasks):
    method = Method("m", library, arrow(library, top_k=2))
    encoded = encode(model.tokenizer, tasks["a"], tasks["a"].split("test")[:3], 32)
    for one, weights_LnE in zip(encoded, routing_weights(model, method, encoded, batch=2), strict=True):
        assert weights_LnE.shape == (2, len(one.tokens), 3)
        np.testing.assert_allclose(weights_LnE.sum(-1), 1, atol=1e-6)


def test_scores_survive_json(model, tasks):
    scores, _ = evaluate(model, Method("base"), tasks.select(["b"]), **SETTINGS)
    value = json.loads(json.dumps(scores["b"].as_json()))
    again = Score.from_json(value)
    np.testing.assert_allclose(again.nats_n, scores["b"].nats_n, atol=1e-6)
    assert again.as_json()["each"] == value["each"]
    assert value["loss"] == pytest.approx(again.loss, abs=1e-6)
    assert (again.examples, again.exact_match, again.rouge_l) == (10, value["exact_match"], value["rouge_l"])
    del value["each"]
    with pytest.raises(InputError, match="delete them and evaluate again"):
        Score.from_json(value)


def test_view_is_what_the_report_takes(model, library, tasks):
    method = Method("m", library, arrow(library))
    (one,) = prepared(model, method, tasks.select(["b"]), examples=1, length=32)
    shown = view(model, method, one)
    assert shown["expected"] == "b"
    assert np.shape(shown["weights"]) == (2, len(shown["tokens"]), 3)


def test_prompts_leave_room_for_answers(model, tasks):
    """The context is 64 tokens: 62 new ones leave room for two."""
    with pytest.raises(InputError, match="'a': a prompt has . tokens; expected at most 2"):
        evaluate(model, Method("base"), tasks, max_new_tokens=62, progress=False)
    scores, _ = evaluate(model, Method("base"), tasks.select(["a"]), max_new_tokens=59, too_long="truncate",
                         progress=False, examples=2)  # fmt: skip
    assert scores["a"].examples == 2
