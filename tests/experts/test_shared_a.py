"""A library that stores one shared A gives the same results as one with a copy of A per expert."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import merge, routing
from modjax.errors import InputError
from modjax.experts.library import Library, concatenate
from modjax.merge.genknowsub import genknowsub

NAMES, SCALE = list("abcd"), [1.0, 2.0, 0.5, 3.0]


@pytest.fixture(scope="module")
def library(word_model, random_library):
    """Four experts on two sites that share their A."""
    sites = {site: word_model.config.sites[site] for site in ("attn.q", "mlp.down")}
    own = random_library(sites, experts=4, rank=3, names=NAMES, scale=SCALE)
    return Library.from_arrays(
        {site: (lora.a[:, :1], lora.b) for site, lora in own.loras.items()}, names=NAMES, scale=SCALE
    )


@pytest.fixture(scope="module")
def expanded(library):
    return library.expanded()


def equal(left, right):
    assert left.infos == right.infos and left.loras.keys() == right.loras.keys()
    jax.tree.map(np.testing.assert_array_equal, (left.loras, left.scale), (right.loras, right.scale))


def close(left, right, atol=1e-6):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), left, right)


def count(library):
    return sum(leaf.size for leaf in jax.tree.leaves(library.loras))


def test_it_holds_one_a(library, expanded):
    assert {lora.a.shape[1] for lora in library.loras.values()} == {1} and len(library) == 4
    assert {lora.a.shape[1] for lora in expanded.loras.values()} == {4}
    per_expert = sum(lora.b.size + lora.scale.size for lora in library.loras.values())
    assert count(library) == per_expert + count(expanded) // 4 - per_expert // 4
    equal(expanded.with_shared_a(), library)
    equal(library.with_shared_a(), library)
    assert (library.rank, library.layers) == (3, 2)


@pytest.mark.parametrize("chosen", ["b", [2, 0], slice(1, None), [3]])
def test_chosen_experts_share_it(library, expanded, chosen):
    equal(library[chosen].expanded(), expanded[chosen])
    assert {lora.a.shape[1] for lora in library[chosen].loras.values()} == {1}


def test_parts_add_up_to_the_whole(library, expanded, random_library):
    equal(library[:1] + library[1:], library)
    equal(concatenate([library[i] for i in range(4)]), library)
    other = random_library({"attn.q": (32, 32)}, experts=2, rank=5, seed=4, names=["x", "y"])
    equal(library + other, expanded + other)
    equal(other + library, other + expanded)
    less = dataclasses.replace(
        library[["c"]], loras={"attn.q": library.loras["attn.q"]._replace(b=library.loras["attn.q"].b[:, 2:3])}
    )
    both = library[:2] + less
    assert (both.loras["attn.q"].a.shape[1], both.loras["mlp.down"].a.shape[1]) == (1, 3)
    equal(both.expanded(), expanded[:2] + less)


def test_ranks_are_those_of_the_expanded(library, expanded):
    jax.tree.map(np.testing.assert_array_equal, library.ranks, expanded.ranks)


def test_saved_and_loaded_it_shares_again(library, expanded, tmp_path):
    library.save(tmp_path / "shared")
    expanded.save(tmp_path / "expanded")
    for name in NAMES:
        files = [tmp_path / one / name / "adapter_model.safetensors" for one in ("shared", "expanded")]
        assert files[0].read_bytes() == files[1].read_bytes()
    for path in (tmp_path / "shared", tmp_path / "expanded"):
        found = Library.load(path)
        jax.tree.map(np.testing.assert_array_equal, (found.loras, found.scale), (library.loras, library.scale))
    found = Library.from_peft([tmp_path / "shared" / name for name in NAMES])
    jax.tree.map(np.testing.assert_array_equal, found.loras, library.loras)


def test_an_expert_with_another_a_is_named(library, random_library):
    one = random_library(
        {site: (lora.a.shape[3], lora.b.shape[3]) for site, lora in library.loras.items()},
        experts=1,
        rank=3,
        seed=3,
        names=["z"],
    )
    with pytest.raises(InputError, match="site attn.q: A of 'z' differs from A of 'a'; expected the same"):
        (library + one).with_shared_a()


def test_an_a_of_some_experts_is_none(library):
    a, b, _ = library.loras["attn.q"]
    with pytest.raises(
        InputError, match=r"a \(2, 2, 3, 32\) and b \(2, 4, 3, 32\); expected a\[L,E,R,I\], or a\[L,1,R,I\]"
    ):
        Library.from_arrays({"attn.q": (jnp.repeat(a, 2, axis=1), b)})


ROUTERS = {
    "uniform": routing.uniform,
    "uniform of outputs": lambda library: routing.uniform(library, "outputs"),
    "arrow": routing.arrow,
    "arrow by power": lambda library: routing.arrow(library, prototypes="power"),
    "spectr": routing.spectr,
    "seqr": routing.seqr,
    "lag": lambda library: routing.lag(library, retrieve=2),
    "logo": lambda library: routing.logo(library, top_k=2),
    "pooled": routing.pooled,
}
TOKENS_BT = np.random.default_rng(0).integers(4, 64, (2, 7))


@pytest.mark.parametrize("method", ROUTERS)
def test_routers_and_logits(word_model, library, expanded, method):
    got, expected = (ROUTERS[method](one) for one in (library, expanded))
    if method != "seqr":  # it stores A, and stores it once
        close(got, expected, atol=5e-6)
    logits = word_model.logits(TOKENS_BT, library, got)
    np.testing.assert_allclose(logits, word_model.logits(TOKENS_BT, expanded, expected), rtol=0, atol=1e-5)
    assert np.abs(logits - word_model.logits(TOKENS_BT)).max() > 0.1


def test_answers_and_the_oracle(word_model, library, expanded):
    prompts = ["w1 w2 w3", "w7", "w30 w31 w32 w33"]
    got, expected = (
        word_model.generate(prompts, one, routing.oracle(one), max_new_tokens=6, choices=["a", 3, -1])
        for one in (library, expanded)
    )
    assert got == expected and any(got)


MERGES = {
    "uniform": merge.uniform,
    "roots": lambda library: merge.weighted(library, [0.5, -0.3, 0.8, 0.1], "roots"),
    "concatenate": merge.concatenate,
    "svd": merge.svd,
    "ties": merge.ties,
    "ties of products": lambda library: merge.ties(library, form="products"),
    "magnitude_prune": merge.magnitude_prune,
    "dare": merge.dare,
    "dare of products": lambda library: merge.dare(library, form="products"),
}


@pytest.mark.parametrize("method", MERGES)
def test_merges(library, expanded, method):
    equal(MERGES[method](library), MERGES[method](expanded))


@pytest.mark.parametrize("mix", ["parameters", "outputs"])
def test_folding(word_model, library, expanded, mix):
    got, expected = (word_model.fold(one, [0.5, -0.2, 0.9, 0.1], mix) for one in (library, expanded))
    jax.tree.map(np.testing.assert_array_equal, got.params, expected.params)


@pytest.mark.parametrize("form", ["factors", "products"])
@pytest.mark.parametrize("both", [True, False])
def test_subtracting_what_is_general(library, expanded, random_library, form, both):
    sites = {site: (lora.a.shape[3], lora.b.shape[3]) for site, lora in library.loras.items()}
    general = random_library(sites, experts=2, rank=3, seed=7, names=["x", "y"])
    whole = general
    if both:
        general = dataclasses.replace(
            general, loras={site: lora._replace(a=lora.a[:, :1]) for site, lora in general.loras.items()}
        )
        whole = general.expanded()
    got, expected = genknowsub(library, general, form), genknowsub(expanded, whole, form)
    assert {lora.a.shape[1] for lora in got.loras.values()} == {1 if form == "factors" else 4}
    close(got.expanded(), expected, atol=5e-6)
