"""Evaluation on a tiny model: scores against a slow reference, and independence of the batch size."""

import numpy as np
import pytest

from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval import Method, Sample, evaluate
from modjax.eval.likelihood import target_loss
from modjax.eval.sample import prepared
from modjax.eval.traces import routing_weights, view
from modjax.routing import arrow, oracle, uniform

SETTINGS = dict(max_new_tokens=3, progress=False)
SAMPLE, FEW = Sample(length=32), Sample(4, length=32)


def _reference_loss(model, library, router, task, example):
    (one,) = encode(model.tokenizer, task, [example], 32)
    logits_TV = np.asarray(model.logits(one.tokens[None], library, router)[0], np.float64)
    log_probs_TV = logits_TV - np.log(np.exp(logits_TV).sum(-1, keepdims=True))
    at = np.arange(one.n_prompt, len(one.tokens))
    return -log_probs_TV[at - 1, one.tokens[at]].sum(), len(at)


@pytest.mark.parametrize("make", [uniform, arrow])
def test_loss_equals_a_row_by_row_reference(model, library, tasks, make):
    router = make(library)
    scores = evaluate(model, tasks, library, router, SAMPLE, **SETTINGS)
    for name, task in tasks.items():
        sums, counts = zip(
            *(_reference_loss(model, library, router, task, one) for one in task.split("test")), strict=True
        )
        assert scores[name]["loss"] == pytest.approx(sum(sums) / sum(counts), abs=1e-5)
        assert scores[name].examples == 10


def test_scores_do_not_depend_on_the_batch_size(model, library, tasks):
    router = arrow(library, top_k=2)
    small, large = (evaluate(model, tasks, library, router, FEW, batch=batch, **SETTINGS) for batch in (3, 16))
    for name in tasks:
        assert small[name]["loss"] == pytest.approx(large[name]["loss"], abs=1e-6)
        assert all(small[name][metric] == large[name][metric] for metric in ("exact_match", "rouge_l"))


def test_oracle_gives_each_task_its_own_expert_and_leaves_others_out(model, library, tasks):
    scores = evaluate(model, tasks, library, oracle(library), SAMPLE, **SETTINGS)
    assert set(scores) == {"a", "b", "c"}
    alone = evaluate(model, tasks.select(["b"]), library["b"], sample=SAMPLE, **SETTINGS)
    assert scores["b"]["loss"] == pytest.approx(alone["b"]["loss"], abs=1e-5)


def test_losses_come_back_in_the_order_asked_for(model, tasks):
    encoded = encode(model.tokenizer, tasks["a"], tasks["a"].split("test"), 32)
    totals, counts = target_loss(model, encoded, batch=4)
    backwards, _ = target_loss(model, encoded[::-1], batch=4)
    np.testing.assert_allclose(totals, backwards[::-1], atol=1e-5)
    assert counts.tolist() == [2] * 10  # "yes" and the end of turn


def test_routing_weights_are_means_over_sites_and_sum_to_one(model, library, tasks):
    method = Method("m", library, arrow(library, top_k=2))
    encoded = encode(model.tokenizer, tasks["a"], tasks["a"].split("test")[:3], 32)
    for one, weights_LnE in zip(encoded, routing_weights(model, method, encoded, batch=2), strict=True):
        assert weights_LnE.shape == (2, len(one.tokens), 3)
        np.testing.assert_allclose(weights_LnE.sum(-1), 1, atol=1e-6)


def test_view_is_what_the_report_takes(model, library, tasks):
    method = Method("m", library, arrow(library))
    (one,) = prepared(model, tasks.select(["b"]), Sample(1, length=32))
    shown = view(model, method, one)
    assert shown["expected"] == "b"
    assert np.shape(shown["weights"]) == (2, len(shown["tokens"]), 3)


def test_prompts_leave_room_for_answers(model, tasks):
    """The context is 64 tokens: 62 new ones leave room for two."""
    with pytest.raises(InputError, match="'a', test example 0 has . tokens and max_new_tokens=62, together 6.; exp"):
        evaluate(model, tasks, max_new_tokens=62, progress=False)
    cut = Sample(2, too_long="truncate")
    assert evaluate(model, tasks.select(["a"]), sample=cut, max_new_tokens=59, progress=False)["a"].examples == 2
    with pytest.raises(InputError, match="max_new_tokens=64: expected a whole number, at least 1 and at most 63"):
        evaluate(model, tasks, sample=cut, max_new_tokens=64, progress=False)
