"""The analysis of a router against a loop over layers, sites, prompts and tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import evaluation

from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.eval import Method, Sample, analyse
from modjax.eval.traces import token_weights
from modjax.routing import arrow, oracle, pooled, uniform
from modjax.routing.base import Bound, Context
from modjax.routing.poly import Poly
from modjax.routing.prompt import PromptRows, routed

SETTINGS = {"sample": Sample(3, length=32), "batch": 4}


@jax.jit
def _look(decoder, bound, context, tokens_BT):
    def look(layer, sites, x_BTI):
        own = [site for site in sites if site in bound.loras]
        n_experts = bound.loras[own[0]].b.shape[1] if own else 0
        return {site: token_weights(layer.router, site, x_BTI, context, n_experts)[0] for site in own}

    return decoder.observe(look, tokens_BT, **routed(decoder, bound, PromptRows.whole(tokens_BT), context))


def _weights(model, library, router, tokens, choice):
    """{site: [L,T,E]} of one prompt, read alone."""
    context = Context(None if choice is None else np.asarray([choice], np.int32))
    return _look(model.params, Bound(library.loras, router), context, tokens[None])


def _poly(library):
    """Two heads that disagree, for each of two tasks; the others get the mean."""
    weights_KHE = np.random.default_rng(3).random((2, 2, 3))
    return Poly(jnp.broadcast_to(jnp.float32(weights_KHE), (2, 2, 2, 3)), ("b", "d"))


MAKERS = {
    "arrow": lambda library: arrow(library, top_k=2),
    "uniform": uniform,
    "oracle": oracle,
    "pooled": lambda library: pooled(library, top_k=2),
    "poly": _poly,
}


@pytest.mark.parametrize("name", MAKERS)
def test_analysis_agrees_with_a_loop(model, library, tasks, name, agrees):
    router = MAKERS[name](library)
    method = Method(name, library, router)
    found = analyse(model, method, tasks, **SETTINGS)
    prompts, owners, choices = [], [], []
    for task in tasks.values():
        if method.covers(task):
            encoded = encode(model.tokenizer, task, SETTINGS["sample"].choose(task), 32)
            prompts += [one.tokens[: one.n_prompt] for one in encoded]
            owners += [library.expert_of(task.name)] * 3
            choices += [method.choice_of(task)] * 3
    weights = [_weights(model, library, router, *one) for one in zip(prompts, choices, strict=True)]
    for s, site in enumerate(library.sites):
        for layer in range(2):
            own = [np.asarray(by_site[site][layer], np.float64) for by_site in weights]
            use_E, entropy, tokens_right, examples_right = evaluation.analysis(own, owners)
            agrees("routing analysis", found.use_LSE[layer, s], use_E)
            agrees("routing analysis", found.entropy_LS[layer, s], entropy)
            agrees("routing analysis", found.tokens_right_LS[layer, s], tokens_right)
            agrees("routing analysis", found.examples_right_LS[layer, s], examples_right)
            agrees("routing analysis", found.effective_LS[layer, s], np.exp(evaluation.entropy(use_E)))
    assert found.examples == len(prompts) and found.tokens == sum(map(len, prompts))


def test_the_oracle_agrees_with_itself_with_zero_entropy(model, library, tasks):
    found = analyse(model, Method("oracle", library, oracle(library)), tasks, **SETTINGS)
    assert found.accuracy == 1 and (found.tokens_right_LS == 1).all()
    np.testing.assert_allclose(found.entropy_LS, 0, atol=1e-6)
    np.testing.assert_allclose(found.use_LSE.sum(-1), 1)


def test_uniform_weights_have_the_largest_entropy(model, library, tasks):
    """Equal weights tie, and the first expert wins every tie: right for task a alone, one in three."""
    found = analyse(model, Method("mu", library, uniform(library)), tasks, **SETTINGS)
    np.testing.assert_allclose(found.entropy_LS, np.log(3), atol=1e-6)
    np.testing.assert_allclose(found.effective_LS, 3, atol=1e-5)
    assert found.accuracy == pytest.approx(1 / 3)


def test_without_an_expert_there_is_no_agreement(model, library, tasks):
    found = analyse(model, Method("mu", library, uniform(library)), tasks.select(["d"]), **SETTINGS)
    assert np.isnan(found.accuracy) and np.isnan(found.tokens_right_LS).all()
    assert np.isfinite(found.entropy_LS).all()


def test_experts_that_share_their_tasks_leave_no_oracle(model, library, tasks):
    """As skills do: none of them is the expert of the task."""
    infos = (*(dataclasses.replace(info, tasks=("a", "b")) for info in library.infos[:2]), library.infos[2])
    shared = dataclasses.replace(library, infos=infos)
    found = analyse(model, Method("mu", shared, uniform(shared)), tasks.select(["a", "b"]), **SETTINGS)
    assert np.isnan(found.accuracy) and found.as_json()["accuracy"] is None
    with_c = analyse(model, Method("mu", shared, uniform(shared)), tasks.select(["a", "b", "c"]), **SETTINGS)
    assert with_c.accuracy == 0  # equal weights tie, and the first expert wins every tie


def test_nothing_depends_on_the_batch_size(model, library, tasks):
    method = Method("arrow", library, arrow(library))
    one, two = (analyse(model, method, tasks, **SETTINGS | {"batch": batch}) for batch in (2, 8))
    np.testing.assert_allclose(one.use_LSE, two.use_LSE, atol=1e-6)
    assert one.accuracy == two.accuracy


def test_a_method_without_a_router_cannot_be_analysed(model, tasks):
    with pytest.raises(InputError, match="'base' has no router"):
        analyse(model, Method("base"), tasks)
