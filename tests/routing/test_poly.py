"""Poly's router: weights by task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.adapting import task_weights as slow_weights

from modjax.routing import Context, Poly
from modjax.routing.poly import task_weights

TASKS = ["copy", "count"]


@pytest.fixture(params=[1, 2], ids=["poly", "mhr"])
def router(request):
    logits = np.random.default_rng(0).normal(size=(2, request.param, 4))
    weights_KHS = task_weights(jnp.float32(logits))
    return Poly(jnp.broadcast_to(weights_KHS[None], (2, *weights_KHS.shape)), TASKS)


def test_weights_are_normalised_sigmoids(agrees):
    logits = np.random.default_rng(1).normal(size=(5, 3, 4)) * 3
    agrees("poly", task_weights(jnp.float32(logits)), slow_weights(logits))


def test_a_row_is_its_tasks_and_others_have_the_mean(router):
    layer = jax.tree.map(lambda leaf: leaf[0], router)
    x_BTI = jnp.zeros((3, 5, 8))
    got = jax.jit(lambda layer, ids: layer("attn.q", x_BTI, Context(ids)))(layer, jnp.asarray([1, -1, 0]))
    weights_KHS = router.weights[0]
    np.testing.assert_allclose(got, [weights_KHS[1], weights_KHS.mean(axis=0), weights_KHS[0]], rtol=1e-6)
    np.testing.assert_allclose(layer("attn.q", x_BTI, Context()), [weights_KHS.mean(axis=0)] * 3, rtol=1e-6)


def test_it_is_saved_and_loaded(router, loaded):
    again = loaded(router)
    assert again.tasks == ("copy", "count") == router.tasks


def test_prompts_are_answered_by_their_tasks(word_model, words, router, loaded):
    prompts = ["w1 w2 w3"] * 3
    answers = word_model.generate(prompts, words, router, max_new_tokens=6, choices=["copy", "count", -1])
    for name, answer in zip(["copy", "count", -1], answers, strict=True):
        alone = word_model.generate(prompts[:1], words, loaded(router), max_new_tokens=6, choices=[name])
        assert alone == [answer]
    assert word_model.generate(prompts[:1], words, router, max_new_tokens=6) == [answers[2]]


def test_decoding_reads_as_prefill_does(decodes_as_recomputed, router):
    decodes_as_recomputed(router)
