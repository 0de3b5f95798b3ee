"""Properties of all merges: one expert is unchanged, order does not matter, nothing is changed in place."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.merging import update

from modjax import merge
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import mixture
from modjax.routing.uniform import uniform as uniform_router

SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}
WEIGHTS = [0.5, -0.3, 0.8]
FULL = 32  # no update of these sites has a larger rank


def assert_same(got, expected, atol=1e-5):
    assert got.keys() == expected.keys()
    for site in got:
        np.testing.assert_allclose(got[site], expected[site], rtol=0, atol=atol)


@pytest.mark.parametrize(("form", "mix"), [("factors", "parameters"), ("products", "outputs")])
def test_uniform_is_the_uniform_router(library, form, mix):
    got = merge.uniform(library, form)
    for site, (inner, _) in SITES.items():
        x_BTI = jax.random.normal(jax.random.key(0), (2, 5, inner))
        first, alone = (jax.tree.map(lambda leaf: leaf[0], one.loras[site]) for one in (library, got))
        weights_E = uniform_router(library, mix)(site, x_BTI, None)
        routed = mixture(x_BTI, first, weights_E, mix)
        np.testing.assert_allclose(mixture(x_BTI, alone, jnp.ones(1)), routed, atol=1e-5)


def test_concatenated_ranks_add_up_without_padding(library, mixed):
    assert merge.concatenate(library).rank == 9
    assert merge.concatenate(mixed).rank == 8


def test_products_cut_at_the_sum_of_ranks_lose_nothing(mixed):
    got = merge.svd(mixed, 8, WEIGHTS)
    assert_same(update(got), update(merge.concatenate(mixed, WEIGHTS)))
    np.testing.assert_allclose(dict(got.infos[0].scores)["kept_energy"], 1, rtol=1e-6)


def test_more_ranks_than_a_site_is_wide(random_library):
    library = random_library({"attn.q": (8, 6)}, experts=3, rank=4)
    assert_same(update(merge.svd(library, 12)), update(merge.concatenate(library)))


def test_dense_merges_are_cut_to_the_nearest_of_the_rank(library):
    got, whole = merge.ties(library, form="products"), update(merge.ties(library, form="products", rank=FULL))
    kept, total = 0, 0
    for site, product in update(got).items():
        squares = np.linalg.svd(whole[site])[1] ** 2
        errors = np.sum((product - whole[site]) ** 2, axis=(-2, -1))
        np.testing.assert_allclose(errors, squares[:, 3:].sum(1), rtol=1e-4)
        kept, total = kept + squares[:, :3].sum(), total + squares.sum()
    assert got.rank == 3
    np.testing.assert_allclose(dict(got.infos[0].scores)["kept_energy"], kept / total, rtol=1e-5)


MERGES = {
    "factors": merge.uniform,
    "roots": lambda library: merge.weighted(library, [1 / len(library)] * len(library), "roots"),
    "products": lambda library: merge.uniform(library, "products"),
    "concatenate": merge.concatenate,
    "svd": merge.svd,
    "ties": merge.ties,
    "ties of products": lambda library: merge.ties(library, form="products"),
    "magnitude_prune": merge.magnitude_prune,
    "dare": merge.dare,
    "dare with signs": lambda library: merge.dare(library, elect=True),
}
WHOLE = MERGES | {
    "ties": lambda library: merge.ties(library, density=1.0),
    "ties of products": lambda library: merge.ties(library, density=1.0, form="products"),
    "magnitude_prune": lambda library: merge.magnitude_prune(library, density=1.0),
    "dare": lambda library: merge.dare(library, density=1.0),
    "dare with signs": lambda library: merge.dare(library, density=1.0, elect=True),
}


@pytest.mark.parametrize("method", MERGES)
def test_the_order_of_experts_does_not_matter(library, method):
    assert_same(update(MERGES[method](library)), update(MERGES[method](library[["c", "a", "b"]])), atol=2e-6)


@pytest.mark.parametrize("method", WHOLE)
def test_one_expert_merges_to_itself(library, method):
    for name in library.names:
        one = library[[name]]
        got = WHOLE[method](one)
        assert_same(update(got), update(one))
        assert (got.rank, got.infos[0].alpha) == (one.rank, one.infos[0].alpha)
        if "products" not in method and method != "svd":
            jax.tree.map(np.testing.assert_array_equal, got.loras, one.loras)


@pytest.mark.parametrize("form", ["factors", "roots", "products"])
def test_one_hot_weights_give_that_expert(mixed, form):
    for e, name in enumerate(mixed.names):
        assert_same(update(merge.weighted(mixed, np.eye(3)[e], form)), update(mixed[[name]]), atol=1e-6)


def test_an_expert_of_small_rank_alone_stays_small(mixed):
    got = merge.uniform(mixed[["a"]])
    assert got.rank == got.infos[0].rank == 2


def test_what_is_known_of_the_experts_is_kept(library, tmp_path):
    info = merge.ties(library, 0.25, form="products", name="all").infos[0]
    assert (info.name, info.tasks, info.fingerprint, info.rank, info.alpha) == (
        "all",
        ("x", "y", "z"),
        "f" * 16,
        3,
        6.0,
    )
    expected = {"merged": "ties", "density": 0.25, "form": "products", "experts": "a, b, c", "weights": "1, 1, 1"}
    assert expected.items() <= dict(info.training).items()
    got = merge.svd(library)
    got.save(tmp_path / "merged")
    again = Library.load(tmp_path / "merged")
    assert again.infos[0].training == got.infos[0].training and again.infos[0].scores == got.infos[0].scores
    jax.tree.map(np.testing.assert_array_equal, again.loras, got.loras)


@pytest.mark.parametrize("method", MERGES)
def test_failed_experts_are_left_out_unless_weighed(library, method):
    failed = dataclasses.replace(library.infos[1], failed=2)
    marked = dataclasses.replace(library, infos=(library.infos[0], failed, library.infos[2]))
    if method == "roots":  # its weights are given
        assert_same(update(MERGES[method](marked)), update(MERGES[method](library)))
        return
    with pytest.warns(UserWarning, match=r"training failed are left out: b \(at step 2\)"):
        got = MERGES[method](marked)
    assert_same(update(got), update(MERGES[method](library[["a", "c"]])))
    assert got.infos[0].tasks == ("x", "z") and dict(got.infos[0].training)["experts"] == "a, c"
    with pytest.raises(InputError, match="failed for all experts"):
        MERGES[method](marked["b"])


def test_settings_of_numpy_are_saved(library, tmp_path):
    merge.dare(library, np.float32(0.5), jnp.ones(3), elect=np.True_, seed=np.int64(1)).save(tmp_path / "dare")
    merge.ties(library, np.float32(0.2), form="products", rank=np.int64(2)).save(tmp_path / "ties")
    training = dict(Library.load(tmp_path / "dare").infos[0].training)
    assert (training["density"], training["elect"], training["seed"]) == (0.5, True, 1)


@pytest.mark.parametrize("method", MERGES)
def test_silent_experts_stay_finite_and_nothing_changes_in_place(library, method):
    loras = {site: lora._replace(scale=jnp.zeros_like(lora.scale)) for site, lora in library.loras.items()}
    silent = dataclasses.replace(library, loras=loras)
    before = jax.tree.map(np.array, silent)
    for product in update(MERGES[method](silent)).values():
        np.testing.assert_array_equal(product, 0)
    jax.tree.map(np.testing.assert_array_equal, silent, before)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda library: merge.uniform(library, "sums"), "form='sums': expected one of factors, roots, products"),
        (
            lambda library: merge.uniform(library, rank=2),
            "rank=2: expected a rank of at least 1",
        ),
        (lambda library: merge.uniform(library, "products", rank=0), "rank=0: expected a rank of at least 1"),
        (lambda library: merge.weighted(library, [1, 2]), r"weights=\[1, 2\]: expected 3 finite numbers"),
        (lambda library: merge.concatenate(library, [1, 2, np.inf]), "expected 3 finite numbers"),
        (lambda library: merge.svd(library, 10), "rank=10: expected 1 to 9, the sum of the experts' ranks"),
        (lambda library: merge.ties(library, 0), "density=0: expected a finite number, above 0 and at most 1"),
        (lambda library: merge.weighted(library, [1, 2, 1e300]), "expected 3 finite numbers"),
        (lambda library: merge.weighted(library, "abc"), "weights='abc': expected 3 finite numbers"),
        (lambda library: merge.weighted(library, [1, [2], 3]), "expected 3 finite numbers"),
        (lambda library: merge.dare(library, seed=2**32), "seed=4294967296: expected a whole number"),
        (lambda library: merge.dare(library, elect=1), "elect=1: expected True or False"),
        (lambda library: merge.svd(library, 1.5), "rank=1.5: expected a whole number"),
        (lambda library: merge.svd(library, name=3), "name=3: expected a string"),
        (
            lambda library: merge.ties(library, rank=2),
            "rank=2: expected a rank of at least 1",
        ),
        (lambda library: merge.dare(library, 1.5), "density=1.5"),
    ],
)
def test_what_cannot_be_is_named(library, call, words):
    with pytest.raises(InputError, match=words):
        call(library)
