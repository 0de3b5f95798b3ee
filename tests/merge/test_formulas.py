"""Merges equal float64 references that treat one expert and one matrix at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
from references import merging as references
from references.merging import update, updates

from modjax import merge
from modjax.merge.thinning import drawn
from modjax.merge.thinning import of_layer as of_draw

SITES = {"attn.q": (32, 32), "mlp.down": (48, 32)}
WEIGHTS = [0.5, -0.3, 0.8]
FULL = 32  # no update of these sites has a larger rank


@pytest.fixture
def agree(agrees):
    """Asserts that a merged expert's updates equal the reference of each layer, f(site, layer) -> [I,O]."""

    def check(method, merged, expected):
        got = update(merged)
        assert got.keys() == SITES.keys()
        for site, got_LIO in got.items():
            agrees(method, got_LIO, np.stack([expected(site, layer) for layer in range(len(got_LIO))]))

    return check


def of_layer(library, site, layer):
    """a[E,R,I], b[E,R,O] and the scales, float64."""
    return tuple(np.float64(leaf[layer]) for leaf in library.loras[site])


@pytest.mark.parametrize("kind", ["library", "mixed"])
@pytest.mark.parametrize("form", ["factors", "roots", "products"])
def test_weighted_is_its_formula(kind, form, request, agree):
    library = request.getfixturevalue(kind)
    for method, call, weights in (
        ("weighted", lambda: merge.weighted(library, WEIGHTS, form), WEIGHTS),
        ("uniform", lambda: merge.uniform(library, form), [1 / 3] * 3),
    ):
        expected = lambda *at, weights=weights: references.weighted(*of_layer(library, *at), weights, form)  # noqa: E731
        agree(f"{method}, {form}", call(), expected)


@pytest.mark.parametrize("kind", ["library", "mixed"])
def test_concatenate_is_its_formula(kind, request, agree):
    library = request.getfixturevalue(kind)
    got = merge.concatenate(library, WEIGHTS)
    agree("concatenate", got, lambda *at: references.concatenated(*of_layer(library, *at), WEIGHTS))


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_svd_is_the_nearest_of_its_rank(library, rank, agree):
    got, whole = merge.svd(library, rank, WEIGHTS), updates(library)
    assert got.rank == got.infos[0].rank == rank
    sums = {site: np.einsum("leio,e->lio", own, np.asarray(WEIGHTS)) for site, own in whole.items()}
    agree("svd", got, lambda site, layer: references.nearest(sums[site][layer], rank))
    squares = np.concatenate([np.linalg.svd(one)[1] ** 2 for one in sums.values()])
    np.testing.assert_allclose(
        dict(got.infos[0].scores)["kept_energy"], squares[:, :rank].sum() / squares.sum(), rtol=1e-6
    )


def own_arrays(library, site, e, side):
    """An expert's unpadded factor of each layer, [R,X], or its update, [I,O]."""
    if side == "product":
        return list(updates(library)[site][:, e])
    rank = library.ranks[site][0, e]
    return list(np.float64(getattr(library.loras[site], side))[:, e, :rank])


def trimmed(library, density, sides):
    """{(site, side): float64[L][E] arrays}, each matrix of each expert trimmed separately."""
    return {
        (site, side): [
            [references.trimmed(array, density) if rank else None for array, rank in zip(layer, ranks_E, strict=True)]
            for layer, ranks_E in zip(
                zip(*(own_arrays(library, site, e, side) for e in range(len(library))), strict=True),
                library.ranks[site],
                strict=True,
            )
        ]
        for site in SITES
        for side in sides
    }


def stack(arrays, shape):
    """float64[E,X,Y]; None for an expert that does not have the site."""
    found = np.zeros((len(arrays), *shape))
    for e, array in enumerate(arrays):
        if array is not None:
            found[e, : array.shape[0]] = array
    return found


def sparse(library, thinned, form, elect):
    """f(site, layer) -> the update [I,O] merged from sparsified experts."""

    def expected(site, layer):
        if form == "products":
            return references.elected(stack(thinned[site, "product"][layer], SITES[site]), WEIGHTS, elect)
        pair = (
            stack(thinned[site, side][layer], (library.rank, width))
            for side, width in zip("ab", SITES[site], strict=True)
        )
        return references.sparse(*pair, np.float64(library.scale), WEIGHTS, form, elect)

    return expected


@pytest.mark.parametrize("kind", ["library", "mixed"])
@pytest.mark.parametrize("form", ["factors", "roots", "products"])
def test_trimmed_merges_are_their_formulas(kind, form, request, agree):
    library = request.getfixturevalue(kind)
    thinned = trimmed(library, 0.3, ("product",) if form == "products" else ("a", "b"))
    rank = FULL if form == "products" else None
    got = merge.ties(library, 0.3, WEIGHTS, form, rank)
    agree(f"ties, {form}", got, sparse(library, thinned, form, elect=True))
    got = merge.magnitude_prune(library, 0.3, WEIGHTS, form, rank)
    agree(f"magnitude_prune, {form}", got, sparse(library, thinned, form, elect=False))


def dropped(library, density, seed=0):
    """The factors of each expert after DARE, {(site, side): float64[L][E]}, from merges of one expert."""
    alone = [merge.dare(library[[e]], density, seed=seed) for e in range(len(library))]
    assert [one.scale[0] for one in alone] == list(library.scale)
    return {
        (site, side): [[np.float64(getattr(one.loras[site], side))[layer, 0] for one in alone] for layer in range(2)]
        for site in SITES
        for side in "ab"
    }


def test_dare_keeps_a_share_and_the_expectation(library):
    density, kept, total = 0.4, 0, 0
    for (site, side), layers in dropped(library, density).items():
        for layer, experts in enumerate(layers):
            own = np.float64(getattr(library.loras[site], side))[layer]
            left = np.stack(experts)
            np.testing.assert_allclose(left[left != 0], own[left != 0] / density, rtol=1e-6)
            kept, total = kept + np.count_nonzero(left), total + left.size
    assert abs(kept / total - density) < 4 * np.sqrt(density * (1 - density) / total)


def masked(library, density, sides, seed):
    """The updates of each expert after DARE, {(site, side): float64[L][E]}; which entries stay is found with ones."""
    draw, found = drawn(library, density, seed), {}
    for site in SITES:
        for side in sides:
            own = [own_arrays(library, site, e, side) for e in range(len(library))]
            shape = SITES[site] if side == "product" else getattr(library.loras[site], side).shape[2:]
            found[site, side] = [
                [
                    references.rescaled(own[e][layer], mask_XY[: len(own[e][layer])], density)
                    for e, mask_XY in enumerate(np.asarray(of_draw(draw(site, side), layer)(jnp.ones((3, *shape)))) > 0)
                ]
                for layer in range(2)
            ]
    return found


@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("form", ["factors", "roots", "products"])
def test_dare_is_its_formula_with_the_same_entries_dropped(library, form, elect, agree):
    rank = FULL if form == "products" else None
    left = masked(library, 0.4, ("product",) if form == "products" else ("a", "b"), seed=3)
    got = merge.dare(library, 0.4, WEIGHTS, form, elect, rank, seed=3)
    agree(f"dare, {form}", got, sparse(library, left, form, elect))


@pytest.mark.parametrize("elect", [False, True])
@pytest.mark.parametrize("form", ["factors", "roots"])
def test_an_expert_loses_the_same_entries_alone_and_among_others(library, form, elect, agree):
    got = merge.dare(library, 0.4, WEIGHTS, form, elect, seed=3)
    agree(f"dare, {form}", got, sparse(library, dropped(library, 0.4, seed=3), form, elect))


def test_dare_of_updates_drops_their_entries(library):
    one = library[["a"]]
    runs = [update(merge.dare(one, 0.5, form="products", rank=FULL, seed=seed)) for seed in range(2)]
    for site, whole in updates(one).items():
        left, doubled = np.stack([run[site] for run in runs]), 2 * whole[None, :, 0]
        np.testing.assert_allclose(np.minimum(np.abs(left), np.abs(left - doubled)), 0, atol=1e-5)
        stays = np.abs(left - doubled) < np.abs(left)
        assert abs(stays.mean() - 0.5) < 2 / np.sqrt(stays.size)
        assert abs(np.mean(stays[0] == stays[1]) - 0.5) < 4 / np.sqrt(stays.size)
