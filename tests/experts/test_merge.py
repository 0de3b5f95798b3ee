"""Merges against plain float64 references, one expert and one matrix at a time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import merge
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import mixture
from modjax.routing.uniform import uniform as uniform_router

SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}
WEIGHTS = [0.5, -0.3, 0.8]
FULL = 32  # no update of these sites has a larger rank


@pytest.fixture
def library(random_library):
    tasks = [["x"], ["y", "x"], ["z"]]
    return random_library(SITES, rank=3, scale=[2.0, 0.5, 1.0], names=list("abc"), tasks=tasks, fingerprint="f" * 16)


@pytest.fixture
def mixed(random_library):
    """Ranks 2 and 4; the last expert has one site alone."""
    small = random_library(SITES, experts=2, rank=2, scale=[2.0, 0.5], names=["a", "b"])
    return small + random_library({"attn.q": (32, 32)}, experts=1, rank=4, seed=1, names=["c"])


def updates(library):
    """{site: s_e B_e^T A_e as float64[L,E,I,O]}."""
    scale_E = np.float64(library.scale)[None, :, None, None]
    return {
        site: scale_E * np.einsum("leri,lero->leio", np.float64(lora.a), np.float64(lora.b))
        for site, lora in library.loras.items()
    }


def update(merged):
    """{site: float64[L,I,O]} of a library of one."""
    assert len(merged) == 1 and len(merged.infos) == 1
    return {site: product[:, 0] for site, product in updates(merged).items()}


def assert_same(got, expected, atol=1e-5):
    assert got.keys() == expected.keys()
    for site in got:
        np.testing.assert_allclose(got[site], expected[site], rtol=0, atol=atol)


def weighted_factors(library, a_shares, b_shares):
    return {
        site: np.einsum("lri,lro->lio", np.einsum("leri,e->lri", a, a_shares), np.einsum("lero,e->lro", b, b_shares))
        for site, (a, b) in jax.tree.map(np.float64, library.loras).items()
    }


@pytest.mark.parametrize("kind", ["library", "mixed"])
def test_weighted_is_its_formula(kind, request):
    library = request.getfixturevalue(kind)
    w, s = np.asarray(WEIGHTS), np.float64(library.scale)
    root = np.sqrt(np.abs(w * s))
    assert_same(update(merge.weighted(library, w)), weighted_factors(library, w, w * s))
    assert_same(update(merge.weighted(library, w, "roots")), weighted_factors(library, np.sign(w) * root, root))
    products = {site: np.einsum("leio,e->lio", one, w) for site, one in updates(library).items()}
    assert_same(update(merge.weighted(library, w, "products")), products)
    assert_same(update(merge.concatenate(library, w)), products)


@pytest.mark.parametrize(("form", "mix"), [("factors", "parameters"), ("products", "outputs")])
def test_uniform_is_the_uniform_router(library, form, mix):
    got = merge.uniform(library, form)
    for site, (inner, _) in SITES.items():
        x_BTI = jax.random.normal(jax.random.key(0), (2, 5, inner))
        first, alone = (jax.tree.map(lambda leaf: leaf[0], one.loras[site]) for one in (library, got))
        weights_E = uniform_router(library, mix)(site, x_BTI, None)
        routed = mixture(x_BTI, first, library.scale, weights_E, mix)
        np.testing.assert_allclose(mixture(x_BTI, alone, got.scale, jnp.ones(1)), routed, atol=1e-5)


def test_concatenated_ranks_add_up_without_padding(library, mixed):
    assert merge.concatenate(library).rank == 9
    assert merge.concatenate(mixed).rank == 8


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_svd_is_the_nearest_of_its_rank(library, rank):
    got = merge.svd(library, rank, WEIGHTS)
    assert got.rank == got.infos[0].rank == rank
    kept, total = 0, 0
    for site, sums in updates(library).items():
        expected = np.einsum("leio,e->lio", sums, np.asarray(WEIGHTS))
        u, s, v = np.linalg.svd(expected, full_matrices=False)
        cut = np.einsum("lir,lr,lro->lio", u[..., :rank], s[..., :rank], v[..., :rank, :])
        np.testing.assert_allclose(update(got)[site], cut, atol=1e-5)
        kept, total = kept + np.sum(s[..., :rank] ** 2), total + np.sum(s**2)
    np.testing.assert_allclose(dict(got.infos[0].scores)["kept_energy"], kept / total, rtol=1e-6)


def test_products_cut_at_the_sum_of_ranks_lose_nothing(mixed):
    got = merge.svd(mixed, 8, WEIGHTS)
    assert_same(update(got), update(merge.concatenate(mixed, WEIGHTS)))
    np.testing.assert_allclose(dict(got.infos[0].scores)["kept_energy"], 1, rtol=1e-6)


def test_more_ranks_than_a_site_is_wide(random_library):
    library = random_library({"attn.q": (8, 6)}, experts=3, rank=4)
    assert_same(update(merge.svd(library, 12)), update(merge.concatenate(library)))


def own_arrays(library, site, e, side):
    """An expert's unpadded factor of each layer, [R,X], or its update, [I,O]."""
    if side == "product":
        return list(updates(library)[site][:, e])
    rank = library.ranks[site][0, e]
    return list(np.float64(library.loras[site][side == "b"])[:, e, :rank])


def trim(arrays, density):
    """The arrays with all but the largest entries of all of them together zeroed."""
    magnitudes = np.sort(np.concatenate([np.abs(array).ravel() for array in arrays]))
    kept = max(1, int(density * len(magnitudes)))
    return [np.where(np.abs(array) >= magnitudes[-kept], array, 0) for array in arrays]


def trimmed(library, density, sides, scope):
    """{(site, side): float64[L][E] arrays}, each expert's trimmed by itself or over all its arrays."""
    kept = {(site, side): [[None] * len(library) for _ in range(2)] for site in SITES for side in sides}
    for e in range(len(library)):
        own = {
            (*key, layer): array
            for key in kept
            for layer, array in enumerate(own_arrays(library, key[0], e, key[1]))
            if library.ranks[key[0]][layer, e]
        }
        if scope == "module":
            thin = {key: trim([array], density)[0] for key, array in own.items()}
        else:
            thin = dict(zip(own, trim(list(own.values()), density), strict=True))
        for (site, side, layer), array in thin.items():
            kept[site, side][layer][e] = array
    return kept


def combined(arrays, weights, elect, shape):
    """One matrix, entry by entry, of those that experts have; None is an expert that lacks it."""
    stack = np.zeros((len(arrays), *shape))
    for e, array in enumerate(arrays):
        if array is not None:
            stack[e, : array.shape[0]] = array
    weighted = stack * np.asarray(weights)[:, None, None]
    if elect is None:
        return weighted.sum(0)
    votes = stack if elect == "total" else np.sign(stack)
    agreeing = np.sign(stack) == np.where(votes.sum(0) >= 0, 1, -1)
    return np.ma.masked_where(~agreeing, weighted).mean(0).filled(0)


def sparse_reference(library, thinned, weights, form, elect):
    w, s = np.asarray(weights), np.float64(library.scale)
    root = np.sqrt(np.abs(w * s))
    shares = {"factors": (w, w * s), "roots": (np.copysign(root, w), root), "products": (w,)}[form]
    out = {}
    for site, (inner, outer) in SITES.items():
        layers = []
        for layer in range(2):
            if form == "products":
                layers.append(combined(thinned[site, "product"][layer], *shares, elect, (inner, outer)))
            else:
                shapes = (library.rank, inner), (library.rank, outer)
                a, b = (
                    combined(thinned[site, side][layer], share, elect, shape)
                    for side, share, shape in zip("ab", shares, shapes, strict=True)
                )
                layers.append(a.T @ b)
        out[site] = np.stack(layers)
    return out


@pytest.mark.parametrize("kind", ["library", "mixed"])
@pytest.mark.parametrize("scope", ["module", "expert"])
@pytest.mark.parametrize("form", ["factors", "roots", "products"])
def test_trimmed_merges_are_their_formulas(kind, scope, form, request):
    library = request.getfixturevalue(kind)
    thinned = trimmed(library, 0.3, ("product",) if form == "products" else ("a", "b"), scope)
    rank = FULL if form == "products" else None
    for elect in ("total", "frequency"):
        got = merge.ties(library, 0.3, WEIGHTS, form, scope, elect, rank)
        assert_same(update(got), sparse_reference(library, thinned, WEIGHTS, form, elect))
    got = merge.magnitude_prune(library, 0.3, WEIGHTS, form, scope, rank)
    assert_same(update(got), sparse_reference(library, thinned, WEIGHTS, form, None))


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


def dropped(library, density, seed=0):
    """What DARE leaves of each expert's factors: {(site, side): float64[L][E]}, read off merges of one expert."""
    alone = [merge.dare(library[[e]], density, seed=seed) for e in range(len(library))]
    assert [one.scale[0] for one in alone] == list(library.scale)
    return {
        (site, side): [[np.float64(one.loras[site][side == "b"])[layer, 0] for one in alone] for layer in range(2)]
        for site in SITES
        for side in "ab"
    }


def test_dare_keeps_a_share_and_the_expectation(library):
    density, kept, total = 0.4, 0, 0
    for (site, side), layers in dropped(library, density).items():
        for layer, experts in enumerate(layers):
            own = np.float64(library.loras[site][side == "b"])[layer]
            left = np.stack(experts)
            np.testing.assert_allclose(left[left != 0], own[left != 0] / density, rtol=1e-6)
            kept, total = kept + np.count_nonzero(left), total + left.size
    assert abs(kept / total - density) < 4 * np.sqrt(density * (1 - density) / total)


@pytest.mark.parametrize("elect", [None, "total", "frequency"])
@pytest.mark.parametrize("form", ["factors", "roots"])
def test_dare_merges_what_is_left_of_each_expert(library, form, elect):
    """An expert loses the same entries alone and among others."""
    got = merge.dare(library, 0.4, WEIGHTS, form, elect, seed=3)
    assert_same(update(got), sparse_reference(library, dropped(library, 0.4, seed=3), WEIGHTS, form, elect))


def test_dare_of_updates_drops_their_entries(library):
    one = library[["a"]]
    runs = [update(merge.dare(one, 0.5, form="products", rank=FULL, seed=seed)) for seed in range(2)]
    for site, whole in updates(one).items():
        left, doubled = np.stack([run[site] for run in runs]), 2 * whole[None, :, 0]
        np.testing.assert_allclose(np.minimum(np.abs(left), np.abs(left - doubled)), 0, atol=1e-5)
        stays = np.abs(left - doubled) < np.abs(left)
        assert abs(stays.mean() - 0.5) < 2 / np.sqrt(stays.size)
        assert abs(np.mean(stays[0] == stays[1]) - 0.5) < 4 / np.sqrt(stays.size)


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
    "dare with signs": lambda library: merge.dare(library, elect="total"),
}
WHOLE = MERGES | {
    "ties": lambda library: merge.ties(library, density=1.0),
    "ties of products": lambda library: merge.ties(library, density=1.0, form="products"),
    "magnitude_prune": lambda library: merge.magnitude_prune(library, density=1.0),
    "dare": lambda library: merge.dare(library, density=1.0),
    "dare with signs": lambda library: merge.dare(library, density=1.0, elect="total"),
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
def test_silent_experts_stay_finite_and_nothing_changes_in_place(library, method):
    silent = dataclasses.replace(library, scale=jnp.zeros(3))
    before = jax.tree.map(np.array, silent)
    for product in update(MERGES[method](silent)).values():
        np.testing.assert_array_equal(product, 0)
    jax.tree.map(np.testing.assert_array_equal, silent, before)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda library: merge.uniform(library, "sums"), "form='sums': expected one of factors, roots, products"),
        (lambda library: merge.uniform(library, rank=2), "rank=2 with form='factors'"),
        (lambda library: merge.uniform(library, "products", rank=0), "rank=0 with form='products'"),
        (lambda library: merge.weighted(library, [1, 2]), r"weights \[1, 2\]: expected 3 finite numbers"),
        (lambda library: merge.concatenate(library, [1, 2, np.inf]), "expected 3 finite numbers"),
        (lambda library: merge.svd(library, 10), "rank=10: the experts' ranks add up to 9"),
        (lambda library: merge.ties(library, 0), r"density=0: expected the share of entries to keep, in \(0, 1\]"),
        (lambda library: merge.ties(library, elect="most"), "elect='most': expected one of total, frequency"),
        (lambda library: merge.ties(library, trim="layer"), "trim='layer': expected one of module, expert"),
        (lambda library: merge.ties(library, rank=2), "rank=2 with form='factors'"),
        (lambda library: merge.dare(library, 1.5), "density=1.5"),
        (lambda library: merge.dare(library, elect="most"), "elect='most'"),
    ],
)
def test_what_cannot_be_is_named(library, call, words):
    with pytest.raises(InputError, match=words):
        call(library)
