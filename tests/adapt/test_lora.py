"""LoRA on new tasks: from scratch, from a shared expert, from the mean of a library."""

import dataclasses

import jax
import numpy as np
import pytest

from modjax import merge
from modjax.adapt import lora, mu
from modjax.data.tasks import Tasks
from modjax.errors import InputError

RUN = {"steps": 3, "batch": 2, "length": 32, "learning_rate": 3e-3, "dropout": 0.0, "progress": False}


@pytest.fixture(scope="module")
def from_mu(word_model, library, new_tasks):
    return mu(word_model, library, new_tasks, **RUN)


def assert_equal(first, second, atol=0.0):
    for got, expected in zip(jax.tree.leaves(first.loras), jax.tree.leaves(second.loras), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def test_held_out_tasks_are_learned_from_scratch(word_model, new_tasks):
    held_out = Tasks(dataclasses.replace(task, held_out=True) for task in new_tasks.values())
    found = lora(word_model, held_out, sites=("attn.q",), rank=2, **RUN)
    assert found.names == ("copy", "sort") and found.tasks == (("copy",), ("sort",))
    assert np.abs(found.loras["attn.q"].b).max() > 1e-4


def test_one_expert_is_the_start_of_all(word_model, library, new_tasks):
    """An expert that learns at a rate of 0 is the one it began as, whatever its scale."""
    found = lora(word_model, new_tasks, library["b"], **(RUN | {"learning_rate": 0.0}))
    for name in found.names:
        assert_equal(found[name], library["b"])
    np.testing.assert_array_equal(found.scale, library["b"].scale[0])
    assert found.infos[0].alpha == library.infos[1].alpha


def test_mu_starts_at_the_mean_of_the_factors(word_model, library, new_tasks):
    found = mu(word_model, library, new_tasks, **(RUN | {"learning_rate": 0.0}))
    for name in found.names:
        assert_equal(found[name], merge.uniform(library))


def test_mu_of_retrieved_experts_starts_each_task_elsewhere(word_model, library, new_tasks):
    retrieved = {"copy": ("c", "b"), "sort": ("b", "a")}  # of scales 1 and 2 at most
    found = mu(word_model, library, new_tasks, retrieved, **(RUN | {"learning_rate": 0.0}))
    tokens_BT = np.arange(24).reshape(2, 12) + 4
    for name, own in retrieved.items():
        expected = word_model.logits(tokens_BT, merge.uniform(library[own]))
        np.testing.assert_allclose(word_model.logits(tokens_BT, found[name]), expected, atol=1e-4)


def test_a_task_in_lockstep_equals_it_alone(word_model, library, new_tasks, from_mu):
    alone = mu(word_model, library, new_tasks.select(["sort"]), **RUN)
    assert_equal(alone, from_mu["sort"], atol=2e-6)


def test_killed_and_resumed_equals_uninterrupted(word_model, library, new_tasks, from_mu, killed_before, tmp_path):
    settings = RUN | {"save_every": 1, "workdir": tmp_path}
    killed_before(3, lambda: mu(word_model, library, new_tasks, **settings))
    assert_equal(mu(word_model, library, new_tasks, **settings), from_mu)


def test_starts_that_do_not_fit_are_named(word_model, library, new_tasks):
    with pytest.raises(InputError, match="init: 3 experts for 2 tasks"):
        lora(word_model, new_tasks, library, **RUN)
