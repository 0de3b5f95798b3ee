import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from modjax.errors import InputError
from modjax.experts.cluster import mbc, similarity
from modjax.experts.library import Library

SITES = {"attn.q": (16, 12), "mlp.down": (10, 16)}


def slow_similarity(library, sparsity, components):
    """The steps of the method on the matrix X[E, P] itself, in float64, each expert at its own rank."""
    rows = []
    for e, info in enumerate(library.infos):
        own = [np.float64(leaf[:, e, : info.rank]).ravel() for leaf in jax.tree.leaves(library.loras)]
        padded = [np.float64(leaf[:, e]).ravel() for leaf in jax.tree.leaves(library.loras)]
        threshold = np.quantile(np.abs(np.concatenate(own)), sparsity)
        row = np.concatenate(padded)
        rows.append(np.where(np.abs(row) > threshold, row, 0))
    u, s, _ = np.linalg.svd(np.stack(rows), full_matrices=False)
    coordinates = u[:, :components] * s[:components]
    coordinates /= np.linalg.norm(coordinates, axis=1, keepdims=True)
    return coordinates @ coordinates.T


@pytest.fixture
def mixed_ranks(random_library):
    small = random_library(SITES, experts=4, rank=2, names=list("abcd"))
    return small + random_library(SITES, experts=3, rank=5, seed=1)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("components", [2, 4, 64])
def test_similarity_equals_the_steps(mixed_ranks, sparsity, components):
    got = similarity(mixed_ranks, sparsity, components)
    np.testing.assert_allclose(got, slow_similarity(mixed_ranks, sparsity, components), atol=2e-5)


def test_similarity_of_an_expert_of_zeros_is_finite(random_library):
    library = random_library(SITES)
    loras = jax.tree.map(lambda leaf: leaf.at[:, 1].set(0), library.loras)
    s_EE = np.asarray(similarity(dataclasses.replace(library, loras=loras)))
    assert np.isfinite(s_EE).all() and not s_EE[1].any()
    np.testing.assert_allclose(s_EE.diagonal()[[0, 2]], 1, rtol=1e-6)


def test_sites_and_layers_that_an_expert_lacks_do_not_count(random_library):
    """Zeros where it has no factors take no part in its quantile: it is as similar to itself as ever."""
    both = random_library(SITES, experts=3, names=list("abc"))
    few = random_library({"attn.q": SITES["attn.q"]}, experts=2, seed=1)
    few.loras["attn.q"] = jax.tree.map(lambda leaf: leaf.at[1, 0].set(0), few.loras["attn.q"])
    got = similarity(both + few, 0.7, 64)

    def sparse(entries):
        entries = np.float64(entries).ravel()
        return np.where(np.abs(entries) > np.quantile(np.abs(entries[entries != 0]), 0.7), entries, 0)

    q, down = (few.loras["attn.q"], jax.tree.map(jnp.zeros_like, both.loras["mlp.down"]))
    rows = [sparse(np.concatenate([np.ravel(leaf[:, e]) for leaf in (*q, *(d[:, :2] for d in down))])) for e in (0, 1)]
    rows += [
        sparse(np.concatenate([np.ravel(leaf[:, e]) for site in SITES for leaf in both.loras[site]])) for e in range(3)
    ]
    rows = np.stack(rows[2:] + rows[:2])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(got, rows @ rows.T, atol=2e-5)


@pytest.fixture(scope="module")
def planted():
    """(library, cluster of each expert): copies of four experts, each with some noise."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(4), 5))

    def factor(width):
        centers = rng.normal(size=(2, 4, 2, width))
        return centers[:, labels] + 0.5 * rng.normal(size=(2, 20, 2, width))

    tasks = [(f"task{i}", "common") for i in range(20)]
    return Library.from_arrays({site: (factor(i), factor(o)) for site, (i, o) in SITES.items()}, tasks=tasks), labels


def test_planted_clusters_are_found(planted):
    library, labels = planted
    found = mbc(library, clusters=4)
    theirs = KMeans(4, n_init=10, random_state=42).fit(np.float64(found.similarity))
    assert adjusted_rand_score(found.labels, labels) == adjusted_rand_score(found.labels, theirs.labels_) == 1.0
    np.testing.assert_allclose(found.inertia, theirs.inertia_, rtol=1e-4)


def test_clusters_are_numbered_by_their_first_expert(planted):
    library, _ = planted
    found = mbc(library, clusters=4)
    firsts = [int(np.flatnonzero(found.labels == cluster)[0]) for cluster in range(4)]
    assert firsts == sorted(firsts) and firsts[0] == 0 and list(found.names) == [0, 1, 2, 3]
    for cluster, names in found.names.items():
        assert names == [name for name, label in zip(library.names, found.labels, strict=True) if label == cluster]


def test_groups_are_the_tasks_of_each_clusters_experts(planted):
    library, _ = planted
    found = mbc(library, clusters=4)
    assert list(found.groups(library)) == [f"cluster {i}" for i in range(4)]
    for cluster, tasks in enumerate(found.groups(library).values()):
        ids = np.flatnonzero(found.labels == cluster)
        assert tasks == (f"task{ids[0]}", "common", *(f"task{i}" for i in ids[1:]))


def test_clusters_are_their_seed(random_library):
    library = random_library(SITES, experts=12)
    first, again = (mbc(library, clusters=3, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.labels, again.labels)
    assert first.inertia == again.inertia


def test_the_order_of_experts_does_not_matter(planted):
    library, labels = planted
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(
        mbc(library[order.tolist()], clusters=4).labels, _numbered(mbc(library, clusters=4).labels[order])
    )


def _numbered(labels):
    first_seen = list(dict.fromkeys(labels.tolist()))
    return [first_seen.index(label) for label in labels.tolist()]


def test_one_cluster_and_one_each(random_library):
    library = random_library(SITES, experts=5)
    assert not mbc(library, clusters=1).labels.any()
    assert mbc(library, clusters=5).labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "fields, words",
    [({"clusters": 0}, "clusters=0"), ({"clusters": 4}, "expected 1 to 3"), ({"sparsity": 1.0}, "sparsity=1.0")],
)
def test_impossible_settings(random_library, fields, words):
    with pytest.raises(InputError, match=words):
        mbc(random_library(SITES), **({"clusters": 2} | fields))
