import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import merging as references

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.genknowsub import genknowsub

SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}


@pytest.fixture
def library(random_library):
    return random_library(
        SITES, experts=3, rank=3, scale=[2.0, 0.5, 1.0], names=list("abc"), tasks=[["x"], ["y"], ["z"]]
    )


@pytest.fixture
def general(random_library):
    return random_library(SITES, experts=2, rank=3, seed=1, scale=[3.0, 0.7], names=["wiki", "web"])


def updates(library):
    """{site: s_e B_e^T A_e as float64[L, E, O, I]}."""
    return {
        site: np.einsum("le,lero,leri->leoi", *(np.float64(leaf) for leaf in (lora.scale, lora.b, lora.a)))
        for site, lora in library.loras.items()
    }


def test_factors_less_the_mean_factors(library, general):
    got = genknowsub(library, general)
    for site, lora in got.loras.items():
        for leaf, own, others in zip(lora[:2], library.loras[site][:2], general.loras[site][:2], strict=True):
            np.testing.assert_allclose(leaf, own - others.mean(1, keepdims=True), atol=1e-6)
        np.testing.assert_array_equal(lora.scale, library.loras[site].scale)
    assert got.infos == library.infos


@pytest.mark.parametrize("form", ["factors", "products"])
def test_both_forms_are_their_formulas(library, general, form, agrees):
    got = updates(genknowsub(library, general, form))
    for site in SITES:
        for layer in range(2):
            own, others = ([np.float64(leaf[layer]) for leaf in one.loras[site]] for one in (library, general))
            if form == "factors":
                expected_EIO = references.less_general_factors(*own, *others[:2])
            else:
                whole = references.of_experts(*own), references.of_experts(*others)
                expected_EIO = references.less_general_products(*whole, rank=3)
            agrees(f"genknowsub, {form}", got[site][layer], np.swapaxes(expected_EIO, 1, 2))


def differences(library, general):
    own, others = updates(library), updates(general)
    return {site: own[site] - others[site].mean(1, keepdims=True) for site in own}


def test_products_at_full_rank_lose_nothing(library, general):
    got = genknowsub(library, general, "products", rank=9)
    assert got.rank == 9 and {info.rank for info in got.infos} == {9}
    np.testing.assert_array_equal(got.scale, library.scale)
    for site, expected in differences(library, general).items():
        np.testing.assert_allclose(updates(got)[site], expected, atol=1e-5)


def test_products_are_the_nearest_of_their_rank(library, general):
    """The error is that of the truncated SVD (Eckart and Young)."""
    got = genknowsub(library, general, "products")
    assert got.infos == library.infos
    for site, expected in differences(library, general).items():
        tail = np.linalg.svd(expected)[1][..., 3:]
        error = np.linalg.norm(updates(got)[site] - expected, axis=(-2, -1))
        np.testing.assert_allclose(error, np.sqrt((tail**2).sum(-1)), rtol=1e-4)


@pytest.mark.parametrize("form", ["factors", "products"])
def test_what_is_general_is_gone(library, form):
    """An expert equal to the mean of the general ones becomes zero."""
    got = genknowsub(library[["a"]], library[["a"]], form)
    for update in updates(got).values():
        np.testing.assert_allclose(update, 0, atol=1e-5)


@pytest.mark.parametrize("form", ["factors", "products"])
def test_nothing_changes_in_place_or_on_the_way_through_a_folder(library, general, tmp_path, form):
    before = jax.tree.map(np.array, (library, general))
    got = genknowsub(library, general, form)
    jax.tree.map(np.testing.assert_array_equal, (library, general), before)
    got.save(tmp_path / "library")
    again = Library.load(tmp_path / "library")
    assert again.infos == got.infos
    jax.tree.map(np.testing.assert_array_equal, again, got)


def test_an_expert_of_smaller_rank_gains_the_means(library, general):
    """All rows of the new factors are used, and the expert is the same after saving and loading."""
    small = dataclasses.replace(library.infos[0], rank=2, alpha=4.0)
    loras = {
        site: lora._replace(a=lora.a.at[:, 0, 2].set(0), b=lora.b.at[:, 0, 2].set(0))
        for site, lora in library.loras.items()
    }
    got = genknowsub(Library(loras, (small, *library.infos[1:])), general)
    assert (got.infos[0].rank, got.infos[0].alpha) == (3, 6.0)


def test_scales_of_single_modules_have_no_part_in_the_factors(random_library):
    library = random_library(SITES, rank=3, names=list("abc"))
    lora = library.loras["attn.q"]
    scaled = library.loras | {"attn.q": lora._replace(scale=lora.scale.at[0, 1].multiply(2))}
    got, plain = genknowsub(Library(scaled, library.infos), library), genknowsub(library, library)
    for own, expected in zip(got.loras["attn.q"][:2], plain.loras["attn.q"][:2], strict=True):
        np.testing.assert_array_equal(own, expected)
    np.testing.assert_array_equal(got.loras["attn.q"].scale, scaled["attn.q"].scale)


def test_a_silent_expert_stays_finite(library, general):
    silent = {site: lora._replace(scale=jnp.zeros_like(lora.scale)) for site, lora in library.loras.items()}
    got = genknowsub(Library(silent, library.infos), general, "products")
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({}, {"form": "both"}, "form='both': expected one of factors, products"),
        ({}, {"rank": 2}, "rank=2: expected a rank of at least 1, and only with form='products'"),
        ({}, {"form": "products", "rank": 0}, "rank=0"),
        ({}, {"form": "products", "rank": 10}, "rank=10: expected at most 9, the rank of the differences"),
        ({"rank": 2}, {}, r"site attn.q: general factors \(2, 2, 2, 32\)"),
        ({"layers": 3}, {"form": "products"}, r"site attn.q: general factors \(3, 2, 3, 32\)"),
        (
            {"sites": {"attn.q": (32, 32)}},
            {},
            "general experts have sites attn.q; expected those of the library, attn.q, mlp.down",
        ),
        ({"fingerprint": "b" * 16}, {}, "different base models"),
    ],
)
def test_what_does_not_fit_is_named(random_library, change, settings, words):
    library = random_library(SITES, rank=3, fingerprint="a" * 16)
    general = random_library(**({"sites": SITES, "experts": 2, "rank": 3} | change))
    with pytest.raises(InputError, match=words):
        genknowsub(library, general, **settings)
