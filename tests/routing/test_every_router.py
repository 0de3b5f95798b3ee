"""Properties of all routers. Decoding compiles each, which tests that it can be jitted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import routing
from modjax.merge.genknowsub import genknowsub
from modjax.ops.top_k import dense
from modjax.routing import Bound, Context, PromptRows, calibrate, settle

NEUTRAL = ["w5 w6 w7 w8", "w50 w51", "w9 w31 w17 w2 w44"]
TIED = (("attn.k", "attn.v"),)

# {name: function of a library, the model and the tasks}
ROUTERS = {
    "uniform": lambda library, *_: routing.uniform(library),
    "uniform, outputs": lambda library, *_: routing.uniform(library, "outputs"),
    "arrow": lambda library, *_: routing.arrow(library, top_k=2),
    "arrow, power": lambda library, *_: routing.arrow(library, top_k=2, prototypes="power", seed=3),
    "arrow, scaled": lambda library, *_: routing.arrow(library, top_k=2, length="singular", scaled=True),
    "arrow, tied": lambda library, *_: routing.arrow(library, top_k=2, tie=TIED),
    "arrow, W0": lambda library, model, _: routing.arrow(library, top_k=2, of="weights", model=model),
    "arrow, normed": lambda library, *_: routing.arrow(
        library, top_k=2, length="singular", input_norm="layernorm", prototype_norm="layernorm"
    ),
    "spectr": lambda library, *_: routing.spectr(library, top_k=2),
    "seqr": lambda library, *_: routing.seqr(library, top_k=2),
    "seqr, calibrated": lambda library, model, _: calibrate(routing.seqr(library, top_k=2), model, NEUTRAL),
    "lag": lambda library, *_: routing.lag(library, retrieve=2),
    "logo": lambda library, *_: routing.logo(library, top_k=2),
    "task representations": lambda *given: routing.task_representations(*given, examples=2),
    "confident": lambda *given: routing.confident(*given, examples=3),
    "pooled": lambda library, model, _: calibrate(routing.pooled(library, top_k=2), model, NEUTRAL),
    "pooled, arrow": lambda library, model, _: calibrate(routing.pooled(library, score="arrow"), model, NEUTRAL),
    "centroid": lambda *given: routing.centroid(*given, examples=2),
    "task predictor": lambda *given: routing.task_predictor(*given, examples=6, top_k=2),
    "phatgoose": lambda *given: routing.phatgoose(*given, steps=3, learning_rate=0.1, length=32, progress=False),
    "oracle": lambda library, *_: routing.oracle(library),
    "genknowsub": lambda library, *_: routing.arrow(library, top_k=2),
}


@pytest.fixture(scope="module", params=ROUTERS)
def build(request, word_model, word_tasks, random_library):
    """A function that gives, for some experts, the library to route over and the router."""
    sites = {site: word_model.config.sites[site] for site in ("attn.k", "attn.v", "mlp.down")}
    general = random_library(sites, experts=2, rank=2, seed=4, names=["wiki", "web"])

    def make(library):
        if request.param == "genknowsub":
            library = genknowsub(library.expanded(), general, "products", rank=3)
        return library, ROUTERS[request.param](library, word_model, word_tasks)

    return make


@pytest.fixture(scope="module")
def built(build, words):
    return build(words)


@pytest.fixture(scope="module")
def weigh(word_model):
    """A function that gives the weights of both layers' attn.v on three rows of tokens, float32[2, B, T, E]."""
    rows = PromptRows.whole(np.random.default_rng(2).integers(4, 64, (3, 9)))
    x_BTI = jnp.float32(np.random.default_rng(3).normal(size=(3, 9, 32)))
    context = Context(jnp.array([0, 0, 0]))

    def of_layers(router, n_experts):
        return [
            dense(one("attn.v", x_BTI, context), n_experts)
            for one in (jax.tree.map(lambda leaf, i=i: leaf[i], router) for i in (0, 1))
        ]

    def make(library, router):
        settled = settle(word_model.params, Bound(library.loras, router), rows).router
        weights = np.stack([_per_token(one) for one in of_layers(settled, len(library))])
        assert weights.dtype == np.float32 and weights.shape == (2, 3, 9, len(library))
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        return weights

    def _per_token(weights):
        weights = np.asarray(weights)
        weights = weights[:, None] if weights.ndim == 2 else weights
        return np.broadcast_to(weights, (3, 9, weights.shape[-1]))

    return make


def test_it_is_saved_and_loaded(built, loaded):
    loaded(built[1])


def test_decoding_equals_recomputing(built, decodes_as_recomputed):
    library, router = built
    decodes_as_recomputed(router, library, 2 if isinstance(router, routing.Oracle) else None)


def test_rows_of_zeros_change_nothing(build, built, words, weigh, of_rank):
    np.testing.assert_allclose(weigh(*build(of_rank(words, 5))), weigh(*built), atol=1e-5)


def marked(library, name):
    infos = tuple(dataclasses.replace(info, failed=5 if info.name == name else None) for info in library.infos)
    return dataclasses.replace(library, infos=infos)


def test_an_expert_whose_training_failed_gets_no_weight(build, built, words, weigh):
    if isinstance(built[1], routing.Oracle):
        return  # it is asked for by its choice
    with pytest.warns(UserWarning, match=r"training failed are left out: count \(at step 5\)"):
        library, router = build(marked(words, "count"))
    assert not weigh(library, router)[..., 1].any()


def test_permuting_the_library_permutes_the_weights(build, built, words, weigh):
    order = [3, 1, 0, 2]
    expected = weigh(*built)[..., order]
    if isinstance(built[1], routing.Oracle):
        expected = weigh(*built)  # the oracle's choice is an index, which the test does not change
    np.testing.assert_allclose(weigh(*build(words[order])), expected, atol=1e-5)


def test_one_expert_gets_all_the_weight(build, words, weigh):
    np.testing.assert_array_equal(weigh(*build(words[["sort"]])), 1)


def test_one_a_for_all_experts_is_that_a_repeated(build, words, weigh):
    """Weights are the same whether A is stored once or per expert."""
    once = {site: lora._replace(a=lora.a[:, :1]) for site, lora in words.loras.items()}
    repeated = {
        site: lora._replace(a=jnp.broadcast_to(lora.a, words.loras[site].a.shape)) for site, lora in once.items()
    }
    got, expected = (weigh(*build(dataclasses.replace(words, loras=loras))) for loras in (once, repeated))
    np.testing.assert_allclose(got, expected, atol=1e-5)
