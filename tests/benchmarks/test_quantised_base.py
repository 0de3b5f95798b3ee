"""The benchmark of quantised bases on a tiny model. No timing is asserted."""

import dataclasses

import jax
import pytest
import quantised_base as benchmark

from modjax.data.tokenize import encode
from modjax.eval.likelihood import target_loss
from modjax.models.weights import quantised
from modjax.train.settings import Settings


@pytest.fixture(scope="module")
def work(word_tokenizer, word_tasks):
    settings = Settings(steps=2, batch=1, length=32, dropout=0.0)
    return benchmark.packed_work(word_tokenizer, list(word_tasks.values())[:2], 2, settings)


def test_figures_of_a_tiny_model(work, word_model):
    small = {name: quantised(word_model.params, name) for name in ("int8", "nf4")}
    models = {"full": word_model} | {
        name: dataclasses.replace(word_model, params=params) for name, params in small.items()
    }
    figures = benchmark.measure(models, work, repeats=1)
    assert figures["full"]["loss_difference"] == 0
    assert figures["nf4"]["block_weight_bytes"] < figures["int8"]["block_weight_bytes"]
    assert figures["int8"]["weight_bytes"] < figures["full"]["weight_bytes"]
    assert abs(figures["int8"]["loss_difference"]) < 0.05 and figures["nf4"]["loss_difference"] != 0
    assert len({figures[name]["fingerprint"] for name in models}) == 1
    assert all(figures[name]["train_tokens_per_second"] > 0 for name in models)
    assert figures["tokens_per_run"]["train"] == sum(int((rows.ends > 0).sum()) for rows in work.training)


def test_the_loss_is_that_of_the_evaluation(work, word_model, word_tokenizer, word_tasks):
    """The loss on packed rows equals that of modjax.eval if the rows contain whole splits."""
    tasks = list(word_tasks.values())[:2]
    whole = benchmark.packed_work(word_tokenizer, tasks, 99, work.settings)
    examples = [one for task in tasks for one in encode(word_tokenizer, task, task.split("validation"), 32)]
    totals, counts = target_loss(word_model, examples)
    assert benchmark.forward(word_model, whole)() == pytest.approx(totals.sum() / counts.sum(), rel=1e-5)


def test_reading_memory_holds_the_model(word_model):
    found = benchmark.reading_memory(lambda: word_model)
    expected = sum(leaf.nbytes for leaf in jax.tree.leaves(word_model.params)) / 2**20
    assert found is None or found["model_mib"] == expected
