"""Prompts with the same weights share rows: losses and answers are those of a row per prompt."""

import sys

import numpy as np
import pytest

from modjax.data import inputs
from modjax.eval.answers import losses_and_answers
from modjax.eval.likelihood import target_loss
from modjax.generation import Request
from modjax.ops.top_k import dense
from modjax.routing import Bound, PromptRows, arrow, confident, pooled, settle, task_predictor
from modjax.routing.batches import packed
from modjax.routing.prompt import PromptRouter
from modjax.routing.table import Table, tabled

EMBEDDING = sys.modules["modjax.routing.embedding"]
MAKERS = {
    "confident": lambda words, model, tasks: confident(words, model, tasks, examples=4, false_positives=0.3),
    "confident, else one": lambda words, model, tasks: confident(words, model, tasks, otherwise="sort", examples=4),
    "task predictor": lambda words, model, tasks: task_predictor(words, model, tasks, examples=4, top_k=1),
    "pooled": lambda words, *_: pooled(words, top_k=1),
}


@pytest.fixture(scope="module")
def examples(word_model, word_tasks):
    return [
        one
        for task in word_tasks.values()
        for one in inputs.examples(word_model, task, task.split("train")[:3], 64, None, "error")
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_losses_and_answers_are_those_of_a_row_per_prompt(name, words, word_model, word_tasks, examples, monkeypatch):
    bound = word_model.bind(words, MAKERS[name](words, word_model, word_tasks))
    request = Request(4, batch=4)

    def found():
        answered = losses_and_answers(word_model, examples, words, bound.router, None, request)
        return target_loss(word_model, examples, bound, batch=4)[0], *answered

    together = found()
    monkeypatch.setattr(type(bound.router), "many_alike", False)
    apart = found()
    for own, expected in zip(together[:2], apart[:2], strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-5)
    assert together[2] == apart[2]


def test_the_table_has_each_prompts_weights(words, word_model, word_tasks, examples):
    bound = word_model.bind(words, MAKERS["confident"](words, word_model, word_tasks))
    made, choices = tabled(word_model.params, bound, examples, None, 3)
    assert isinstance(made.router, Table) and len(set(choices)) < len(examples)
    for one, choice in zip(examples, choices, strict=True):
        alone = settle(word_model.params, bound, PromptRows.whole(one.tokens[None, : one.n_prompt])).router
        expected = dense(alone("", None, None), len(words))[0, 0]
        weights = made.router.weights[0, choice] if made.router.ids is None else None
        np.testing.assert_allclose(weights, expected, atol=1e-6)
    rows = [own.rows.tokens.shape for own in packed(examples, made, choices)]
    per_prompt = [own.rows.tokens.shape for own in packed(examples, bound)]
    assert sum(n for n, _ in rows) < sum(n for n, _ in per_prompt)


def test_routers_that_know_prompts_by_an_embedding_read_them_once_for_all(
    words, word_model, word_tasks, examples, monkeypatch
):
    routers = [MAKERS[name](words, word_model, word_tasks) for name in ("confident", "confident, else one")]
    reads, packed_ = [], EMBEDDING.packed
    monkeypatch.setattr(EMBEDDING, "packed", lambda *given: reads.append(1) or packed_(*given))
    for router in routers:
        tabled(word_model.params, word_model.bind(words, router), examples, None, 5)
    assert len(reads) == 1


def test_other_routers_are_unchanged(words, word_model, examples):
    for router in (arrow(words), pooled(words, top_k=2)):
        bound = Bound(words.loras, router)
        assert tabled(word_model.params, bound, examples, None, 4) == (bound, None)
    assert tabled(word_model.params, None, examples, None, 4) == (None, None)
    assert isinstance(pooled(words), PromptRouter) and pooled(words).many_alike
