"""Likelihoods of choices: those of each choice alone, under each router; and which choice each normalisation takes."""

import types

import numpy as np
import pytest
from alone import MAKERS, loss_alone

from modjax.eval.benchmarks import encoding, likelihood
from modjax.eval.benchmarks.benchmark import Choices
from modjax.eval.benchmarks.likelihood import METRICS, scores

WORDS = "red green blue one two three cat dog bird yes no what is the name".split()  # noqa: SIM905


def _questions(n=9, seed=0):
    rng = np.random.default_rng(seed)

    def words(least, most):
        return " ".join(rng.choice(WORDS, rng.integers(least, most)))

    found = [Choices((words(2, 7),) * 3, tuple(words(1, 6) for _ in range(3)), int(rng.integers(3))) for _ in range(n)]
    return [*found, Choices((words(2, 5), words(2, 5)), (words(1, 4),) * 2, 1)]


@pytest.mark.parametrize("name", ["base", "arrow", "pooled", "oracle"])
def test_equal_to_each_choice_alone_whatever_the_batch(model, library, name):
    router, questions = MAKERS[name](library), _questions()
    bound, choice = model.bind(router and library, router), 1 if name == "oracle" else None
    expected = [
        [-loss_alone(model, bound, encoding.pair(model, context, f" {text}"), choice) for context, text in
         zip(one.contexts, one.continuations, strict=True)]
        for one in questions
    ]  # fmt: skip
    for batch in (1, 4, 32):
        values, found = scores(model, bound, questions, choice, batch, False)
        assert [len(own) for own in found] == [len(own) for own in expected]
        np.testing.assert_allclose(sum(found, []), sum(expected, []), rtol=1e-5, atol=1e-5)
        for metric in METRICS:
            assert values[metric].tolist() == [_slow(metric, *pair) for pair in zip(questions, expected, strict=True)]


def _slow(metric, one, loglikelihoods):
    """1 where the right choice is the first of the most likely ones, by the words of the module."""
    best, at = -np.inf, None
    for i, (text, nats) in enumerate(zip(one.continuations, loglikelihoods, strict=True)):
        size = {"acc": 1, "acc_norm": len(text), "acc_bytes": len(bytes(text, "utf8")), "acc_token": len(text.split())}
        if nats / size[metric] > best:
            best, at = nats / size[metric], i
    return float(at == one.gold)


def test_each_normalisation_takes_another_choice(model, monkeypatch):
    """Nats by hand: one choice has most of all, one per character, one per byte, one per token."""
    texts = ("cat", "the name is yes", "\u00e9" * 18, "red green blue one two three")
    nats = np.asarray([2.0, 4.0, 4.7, 5.4])
    tokens = np.asarray([1, 4, 3, 6])
    monkeypatch.setattr(likelihood, "target_loss", lambda *given: (np.tile(nats, 4), np.tile(tokens, 4)))
    right = {}
    for gold in range(4):
        right[gold] = Choices(("what",) * 4, texts, gold)
    values, found = scores(model, None, list(right.values()), None, 32, False)
    taken = {metric: int(np.argmax(own)) for metric, own in values.items()}
    assert taken == {"acc": 0, "acc_norm": 3, "acc_bytes": 2, "acc_token": 3}
    assert found == [(-nats).tolist()] * 4


def test_the_sizes_are_those_of_the_harness():
    from lm_eval.api.task import ConfigurableTask

    task = ConfigurableTask.__new__(ConfigurableTask)
    names = ("acc", "acc_norm", "acc_bytes")
    task.OUTPUT_TYPE, task._metric_fn_list, task.multiple_input, task.multiple_target = "multiple_choice", {}, 0, 0
    task._metric_fn_list = dict.fromkeys(names)
    task._config = types.SimpleNamespace(process_results=None)
    for one, seed in zip(_questions(20), range(20), strict=False):
        if len(set(one.contexts)) > 1:
            continue
        texts = [text + "\u00e9" * (i % 2) for i, text in enumerate(one.continuations)]
        one = one._replace(continuations=tuple(texts))
        nats = np.random.default_rng(seed).normal(size=3) - 5
        task.doc_to_choice, task.doc_to_target = lambda doc, own=texts: own, lambda doc, own=one: own.gold
        expected = task.process_results({}, [(float(value), False) for value in nats])
        sizes = likelihood._sizes(one, np.ones(3))
        assert {name: float(np.argmax(nats / sizes[name]) == one.gold) for name in names} == {
            name: expected[name] for name in names
        }
