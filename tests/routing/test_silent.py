"""Experts without an update at a site and layer, and experts whose training failed: no direction, and no weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import routing
from modjax.errors import InputError
from modjax.ops.top_k import dense
from modjax.routing import Bound, Context, PromptRows
from modjax.routing.centroid import Centroid
from modjax.routing.editing import n_experts
from modjax.routing.gates import PhatGoose
from modjax.routing.prototypes import has_direction

TIED = (("attn.k", "attn.v"),)

TOKEN_ROUTERS = {
    "arrow": lambda library, _: routing.arrow(library, top_k=-1),
    "arrow, top 4": lambda library, _: routing.arrow(library, top_k=4),
    "arrow, power": lambda library, _: routing.arrow(library, top_k=-1, prototypes="power"),
    "arrow, W0": lambda library, model: routing.arrow(library, top_k=-1, of="weights", model=model),
    "arrow, tied": lambda library, _: routing.arrow(library, top_k=-1, tie=TIED),
    "arrow, layernorm": lambda library, _: routing.arrow(library, top_k=-1, prototype_norm="layernorm"),
    "spectr": lambda library, _: routing.spectr(library, top_k=-1),
    "spectr, scaled": lambda library, _: routing.spectr(library, top_k=-1, scaled=True),
    "seqr": lambda library, _: routing.seqr(library, top_k=-1),
    "lag": lambda library, _: routing.lag(library, top_k=-1),
    "lag, retrieving": lambda library, _: routing.lag(library, retrieve=4, top_k=-1),
}
HEARD = np.array([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 1]], bool)  # at attn.v, by layer


@pytest.fixture(scope="module")
def silent(words, random_library):
    """Six experts. At attn.v, B of the first is 0 in layer 0. In layer 1 its A is 0, the scale of the second is 0, and
    A and B of the fifth are not 0 in different ranks."""
    sites = {site: (lora.a.shape[3], lora.b.shape[3]) for site, lora in words.loras.items()}
    library = words + random_library(sites, experts=2, rank=3, seed=9, names=["e", "f"])
    k, v = library.loras["attn.k"], library.loras["attn.v"]
    a = k.a.at[1, 0].set(0).at[1, 4, 1:].set(0)  # tied
    v = v._replace(a=a, b=v.b.at[0, 0].set(0).at[1, 4, :1].set(0), scale=v.scale.at[1, 1].set(0))
    return dataclasses.replace(library, loras=library.loras | {"attn.k": k._replace(a=a), "attn.v": v})


def of_layers(router):
    """The weights of both layers at attn.v on three rows of seven tokens, float32[2,3,7,E]."""
    x_BTI = jnp.float32(np.random.default_rng(3).normal(size=(3, 7, 32)))
    layers = (jax.tree.map(lambda leaf, i=i: leaf[i], router) for i in (0, 1))
    weigh = jax.jit(lambda one: dense(one("attn.v", x_BTI, Context()), n_experts(router)))
    return np.stack([weigh(one) for one in layers])


def test_a_direction_is_told_by_the_update(silent):
    np.testing.assert_array_equal(has_direction(silent.loras["attn.v"]), HEARD)
    assert has_direction(silent.loras["mlp.down"]).all()


@pytest.mark.parametrize("name", TOKEN_ROUTERS)
def test_where_an_expert_has_no_update_it_gets_no_weight(name, silent, word_model):
    weights_LBTE = of_layers(TOKEN_ROUTERS[name](silent, word_model))
    np.testing.assert_array_equal((weights_LBTE > 0).any(axis=(1, 2)), HEARD)
    np.testing.assert_allclose(weights_LBTE.sum(axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["arrow", "lag, retrieving", "seqr"])
def test_the_others_are_weighed_as_if_it_were_not_there(name, silent, word_model):
    got_BTE = of_layers(TOKEN_ROUTERS[name](silent, word_model))[1][..., [2, 3, 5]]
    expected_BTE = of_layers(TOKEN_ROUTERS[name](silent[[2, 3, 5]], word_model))[1]
    np.testing.assert_allclose(got_BTE, expected_BTE, atol=1e-5)


@pytest.mark.parametrize("name", ["arrow", "arrow, top 4", "spectr", "seqr", "lag, retrieving"])
def test_where_no_expert_has_an_update_none_gets_weight(name, silent, word_model):
    loras = {site: lora._replace(b=jnp.zeros_like(lora.b)) for site, lora in silent.loras.items()}
    weights_LBTE = of_layers(TOKEN_ROUTERS[name](dataclasses.replace(silent, loras=loras), word_model))
    np.testing.assert_array_equal(weights_LBTE, 0)


def test_a_prototype_without_direction_is_0(silent, word_model):
    for name in ("arrow", "arrow, power", "arrow, W0", "arrow, tied", "arrow, layernorm"):
        prototype_LEI = TOKEN_ROUTERS[name](silent, word_model).prototypes["attn.v"]
        np.testing.assert_array_equal(np.any(np.asarray(prototype_LEI) != 0, axis=-1), HEARD)


@pytest.mark.parametrize("kind", [Centroid, PhatGoose])
def test_vectors_of_0_get_no_weight(kind, silent):
    """An expert without update has no centroid, and its gate has no gradient, so that it stays 0."""
    vectors_LEI = np.float32(np.random.default_rng(0).normal(size=(2, 6, 32))) * HEARD[..., None]
    weights_LBTE = of_layers(kind({"attn.v": jnp.asarray(vectors_LEI)}, top_k=-1))
    np.testing.assert_array_equal((weights_LBTE > 0).any(axis=(1, 2)), HEARD)


def prompt_weights(router, library, model):
    rows = PromptRows.whole(np.random.default_rng(2).integers(4, 64, (3, 9)))
    settled = routing.settle(model.params, Bound(library.loras, router), rows).router
    return np.asarray(dense(settled("", None, None), len(library))[0])


@pytest.fixture(scope="module")
def mute(silent):
    """The first expert has no update at all; the others are as they were."""
    loras = {site: lora._replace(b=lora.b.at[:, 0].set(0)) for site, lora in silent.loras.items()}
    return dataclasses.replace(silent, loras=loras)


@pytest.mark.parametrize("otherwise", ["uniform", "base"])
@pytest.mark.parametrize("score", ["norm", "arrow"])
def test_an_expert_without_any_update_gets_no_prompts(mute, word_model, score, otherwise):
    for least in (None, 1e6):
        router = routing.pooled(mute, top_k=-1, score=score, least=least, otherwise=otherwise)
        router = dataclasses.replace(router, mean={site: mean + 9 for site, mean in router.mean.items()})  # s < 0
        weights_BE = prompt_weights(router, mute, word_model)
        assert not weights_BE[:, 0].any() and weights_BE[:, 1:].all() == (least is None or otherwise == "uniform")


def test_the_mean_of_a_prompt_is_over_the_sites_with_an_update(silent, word_model):
    """Two experts that are equal where both have an update get the same weight."""
    pair = silent[["f", "reverse"]]
    loras = {site: lora._replace(a=lora.a[:, :1].repeat(2, 1), b=lora.b[:, :1].repeat(2, 1)) for site, lora in
             pair.loras.items()}  # fmt: skip
    only = {"attn.k": loras["attn.k"], "attn.v": loras["attn.k"]}  # equal scores at both sites
    only["attn.v"] = only["attn.v"]._replace(b=only["attn.v"].b.at[:, 1].set(0))
    library = dataclasses.replace(pair, loras=only)
    np.testing.assert_allclose(prompt_weights(routing.pooled(library, top_k=-1), library, word_model), 0.5, atol=1e-6)


@pytest.mark.parametrize("signal", ["norm", "entropy"])
def test_logo_gives_nothing_to_an_output_of_0(mute, word_model, signal):
    weights_BE = prompt_weights(routing.logo(mute, top_k=-1, signal=signal, site="attn.k"), mute, word_model)
    assert not weights_BE[:, 0].any() and weights_BE[:, 1:].all()


def failed(library, *names):
    infos = tuple(dataclasses.replace(info, failed=5 if info.name in names else None) for info in library.infos)
    return dataclasses.replace(library, infos=infos)


@pytest.mark.filterwarnings("ignore:experts whose training failed")
@pytest.mark.parametrize("name", ["arrow", "lag, retrieving", "seqr", "spectr"])
def test_without_a_failed_expert_the_others_are_weighed_alike(name, words, word_model):
    got = of_layers(TOKEN_ROUTERS[name](failed(words, "count"), word_model))[..., [0, 2, 3]]
    expected = of_layers(TOKEN_ROUTERS[name](words[["copy", "reverse", "sort"]], word_model))
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("build", [routing.arrow, routing.uniform, routing.logo, routing.pooled])
def test_failed_experts_are_taken_if_asked_for(build, words):
    library = failed(words, "count")
    jax.tree.map(np.testing.assert_array_equal, build(library, failed=True), build(words))
    with pytest.raises(InputError, match=r"failed for all experts: copy \(at step 5\), count"):
        build(failed(words, *words.names))


@pytest.mark.filterwarnings("ignore:experts whose training failed")
@pytest.mark.parametrize("build", [routing.uniform, routing.logo])
def test_routers_without_arrays_remember_whom_they_leave_out(build, words, loaded):
    router = loaded(build(failed(words, "count", "sort")))
    assert router.left_out == (1, 3)
    assert routing.restricted(router, [3, 2]).left_out == (0,)
    assert routing.extended(router, build(failed(words, "copy"))).left_out == (1, 3, 4)
    with pytest.raises(InputError, match="all experts"):
        routing.restricted(router, [1, 3])


@pytest.mark.parametrize("temperature", [1e-45, 1e-38, 1e-30])
def test_a_temperature_near_0_takes_the_largest_score(words, temperature):
    weights_LBTE = of_layers(routing.arrow(words, top_k=3, temperature=temperature))
    expected = of_layers(routing.arrow(words, top_k=1))
    np.testing.assert_array_equal(weights_LBTE, expected)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "1", None])
def test_a_temperature_that_is_none_is_refused(words, temperature):
    with pytest.raises(InputError, match="^temperature="):
        routing.spectr(words, temperature=temperature)
