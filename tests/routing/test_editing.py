"""Routers for libraries with experts added or removed: the parts of other experts are bit-identical, and the router
equals one that is built for the new library."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing import arrow, calibrate, lag, logo, oracle, pooled, seqr, spectr, task_representations, uniform
from modjax.routing.centroid import Centroid
from modjax.routing.editing import extended, restricted
from modjax.routing.prompt import Settled

BUILDERS = {
    "arrow": functools.partial(arrow, top_k=2),
    "arrow by power": functools.partial(arrow, prototypes="power"),
    "spectr": spectr,
    "scaled spectr": functools.partial(spectr, scaled=True),
    "seqr": seqr,
    "lag": functools.partial(lag, retrieve=2),
    "pooled": pooled,
    "pooled by arrow": functools.partial(pooled, score="arrow"),
    "uniform": uniform,
    "oracle": oracle,
    "logo": functools.partial(logo, site="mlp.down"),
}


@pytest.fixture(scope="module")
def shared(library):
    """The experts with the first one's A."""
    loras = {site: lora._replace(a=lora.a[:, :1]) for site, lora in library.loras.items()}
    return dataclasses.replace(library, loras=loras)


def same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def close(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), got, expected)


@pytest.mark.parametrize("method", BUILDERS)
def test_they_are_those_built_anew(library, method):
    build = BUILDERS[method]
    whole = build(library)
    close(extended(build(library[:1]), build(library[1:])), whole)
    close(extended(build(library[:3]), build(library[3])), whole)
    close(restricted(whole, [0, 3, 2]), build(library[[0, 3, 2]]))
    close(restricted(whole, [1]), build(library[1]))


@pytest.mark.parametrize("method", BUILDERS)
def test_the_others_are_not_touched(library, method):
    build = BUILDERS[method]
    parts = build(library[:3]), build(library[3])
    whole = extended(*parts)
    for part, ids in zip(parts, ([0, 1, 2], [3]), strict=True):
        same(restricted(whole, ids), part)


@pytest.mark.parametrize("method", BUILDERS)
def test_so_they_are_where_a_is_shared(shared, method):
    build = BUILDERS[method]
    whole = build(shared)
    close(extended(build(shared[:2]), build(shared[2:])), whole)
    close(restricted(whole, [3, 1]), build(shared[[3, 1]]))


@pytest.mark.parametrize("method", ["spectr", "seqr", "pooled", "lag"])
def test_smaller_ranks_are_padded(library, random_library, method):
    build = BUILDERS[method]
    sites = {site: (lora.a.shape[3], lora.b.shape[3]) for site, lora in library.loras.items()}
    small = random_library(sites, experts=1, rank=2, layers=3, seed=8, names=["e"], scale=0.25)
    close(extended(build(small), build(library)), build(small + library))


def test_calibrated_routers_stay_so(model, library, prompts):
    whole = calibrate(seqr(library), model, prompts)
    parts = [calibrate(seqr(library[part]), model, prompts) for part in (slice(2), slice(2, None))]
    got = extended(*parts)
    close(got, whole)
    same(restricted(got, [0, 1]), parts[0])


def test_others_that_share_another_a_are_expanded(library, shared):
    got = extended(seqr(shared), seqr(library["b"]))
    same(
        got, seqr(shared + dataclasses.replace(library["b"], infos=(dataclasses.replace(library.infos[1], name="x"),)))
    )
    assert got.a["attn.q"].shape[1] == 5


def test_an_edited_router_routes(model, library, tokens_BT, loaded):
    router = loaded(extended(arrow(library[:2]), arrow(library[2:])))
    expected = model.logits(tokens_BT, library, arrow(library))
    np.testing.assert_allclose(model.logits(tokens_BT, library, router), expected, rtol=0, atol=1e-5)


def test_routers_of_a_whole_library_are_refused(word_model, words, word_tasks):
    router = task_representations(words, word_model, word_tasks)
    settled = Settled(np.ones((2, 1, 4), np.float32))
    for one, name in ((router, "TaskRepresentations router's tasks"), (settled, "Settled router's weights")):
        for call in (lambda one: extended(one, one), lambda one: restricted(one, [0])):
            with pytest.raises(InputError, match=f"{name} depends on the library as a whole, .*; build"):
                call(one)


def test_routers_that_do_not_fit_are_named(library, random_library):
    one = arrow(library)
    narrow = Library.from_arrays(
        {site: tuple(np.array(x)[..., :9] for x in lora[:2]) for site, lora in library.loras.items()}
    )
    less = dataclasses.replace(library, loras={"attn.q": library.loras["attn.q"]})
    for other, words in (
        (spectr(library), "a Arrow router and a Spectr router; expected two of the same class"),
        (arrow(library, top_k=1), "have top_k = 4 and 1; expected the same"),
        (arrow(less), "for the sites attn.q, mlp.down and attn.q; expected the same"),
        (arrow(narrow), r"arrays \(3, 4, 32\) and \(3, 4, 9\) \(L, E, I\) of two routers do not fit"),
    ):
        with pytest.raises(InputError, match=words):
            extended(one, other)


@pytest.mark.parametrize("ids", [[], [0, 0], [4], [-1]])
def test_choices_that_make_no_router(library, ids):
    with pytest.raises(InputError, match="expected at least one of 0 to 3, each at most once"):
        restricted(uniform(library), ids)


def test_routers_of_each_experts_own_data_can_be_edited(library):
    parts = [
        Centroid({"attn.q": library.loras["attn.q"].b[:, part, 0]}) for part in (slice(2), slice(2, None), slice(None))
    ]
    same(extended(*parts[:2]), parts[2])
    same(restricted(parts[2], [0, 1]), parts[0])
