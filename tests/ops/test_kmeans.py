import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from modjax.ops.kmeans import kmeans

fit = jax.jit(kmeans, static_argnums=(1, 3))


def inertia(x_nd, labels_n):
    x_nd = np.float64(x_nd)
    members = (x_nd[labels_n == label] for label in np.unique(labels_n))
    return sum(np.sum((own - own.mean(axis=0)) ** 2) for own in members)


def blobs(rng, offset=0.0):
    labels_n = rng.permutation(np.repeat(np.arange(5), 12))
    return np.float32(offset + 10 * rng.normal(size=(5, 6))[labels_n] + 0.3 * rng.normal(size=(60, 6))), labels_n


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_kmeans_finds_separate_blobs(offset):
    x_nd, planted_n = blobs(np.random.default_rng(0), offset)
    found = fit(jnp.array(x_nd), 5, jax.random.key(0))
    theirs = KMeans(5, n_init=10, random_state=0).fit(np.float64(x_nd))
    assert adjusted_rand_score(planted_n, found.labels) == adjusted_rand_score(theirs.labels_, found.labels) == 1.0
    np.testing.assert_allclose(found.inertia, theirs.inertia_, rtol=1e-3)
    means_nd = np.stack([x_nd[found.labels == label].mean(axis=0, dtype=np.float64) for label in range(5)])
    np.testing.assert_allclose(found.centers, means_nd, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("n, d, k", [(40, 3, 6), (48, 48, 10)])
def test_kmeans_is_never_worse_than_scikit_learn(n, d, k):
    """On points without structure, where every start gives another result."""
    for seed in range(12):
        x_nd = np.float32(np.random.default_rng(seed).normal(size=(n, d)))
        found = fit(jnp.array(x_nd), k, jax.random.key(42))
        theirs = KMeans(k, n_init=10, random_state=seed).fit(np.float64(x_nd))
        ours = inertia(x_nd, np.asarray(found.labels))
        assert ours <= inertia(x_nd, theirs.labels_) * (1 + 1e-6), seed
        np.testing.assert_allclose(found.inertia, ours, rtol=1e-5)


def normal(rng):
    return rng.normal(size=(256, 5))


def one_far_away(rng):
    """Compared with it, the gains among the other points are small."""
    x_nd = normal(rng)
    x_nd[0] += 1e3
    return x_nd


def cosines(rng):
    x_nd = rng.normal(size=(256, 64))
    unit_nd = x_nd / np.linalg.norm(x_nd, axis=1, keepdims=True)
    return unit_nd @ unit_nd.T


@pytest.mark.parametrize("points", [normal, one_far_away, cosines])
def test_kmeans_of_many_clusters_is_better_than_scikit_learn(points):
    """On points without structure, Lloyd's iteration alone ends a few per cent above the inertia after single moves."""
    for seed in range(2):
        x_nd = np.float32(points(np.random.default_rng(seed)))
        found = fit(jnp.array(x_nd), 40, jax.random.key(42), 8)
        theirs = KMeans(40, n_init=10, random_state=42).fit(np.float64(x_nd))
        ours = inertia(x_nd, np.asarray(found.labels))
        assert ours <= 0.96 * inertia(x_nd, theirs.labels_), seed
        np.testing.assert_allclose(found.inertia, ours, rtol=1e-5)


def test_more_restarts_of_kmeans_are_never_worse():
    x_nd = jnp.array(normal(np.random.default_rng(7)), jnp.float32)
    inertias = [float(fit(x_nd, 40, jax.random.key(0), restarts).inertia) for restarts in (1, 8, 21)]
    assert inertias == sorted(inertias, reverse=True) and inertias[0] > inertias[-1]


def test_memory_of_kmeans_does_not_grow_with_restarts():
    """No array [n, k, d] is in memory either: here it would take 10 MiB, and eight of them 80 MiB."""

    def temporary(restarts):
        points = jax.ShapeDtypeStruct((256, 256), jnp.float32)
        return fit.lower(points, 40, jax.random.key(0), restarts).compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) < 1.2 * temporary(8) < 4 * 2**20


def test_kmeans_at_the_ends_of_k():
    x_nd = np.float32(np.random.default_rng(3).normal(size=(9, 4)))
    one = fit(jnp.array(x_nd), 1, jax.random.key(0))
    assert not one.labels.any()
    np.testing.assert_allclose(one.inertia, inertia(x_nd, np.zeros(9)), rtol=1e-5)
    each = fit(jnp.array(x_nd), 9, jax.random.key(0))
    assert sorted(each.labels.tolist()) == list(range(9))
    np.testing.assert_allclose(each.inertia, 0, atol=1e-9)


@pytest.mark.parametrize("k", [2, 5])
def test_kmeans_puts_equal_points_together(k):
    x_nd = np.repeat(np.float32([[0, 0], [9, 0], [0, 5]]), [4, 3, 2], axis=0)
    found = fit(jnp.array(x_nd), k, jax.random.key(1))
    groups = [set(found.labels[i:j].tolist()) for i, j in ((0, 4), (4, 7), (7, 9))]
    assert all(len(group) == 1 for group in groups) and len(set.union(*groups)) == min(k, 3)
    assert np.isfinite(found.centers).all()


def test_kmeans_keeps_many_equal_points_together():
    """The rounding error of their mean must not move one of them to an empty cluster."""
    points_n = np.random.default_rng(6).permutation(np.repeat(np.arange(3), 333))
    x_nd = np.float32(100 + np.random.default_rng(0).normal(size=(3, 17)))[points_n]
    labels_n = np.asarray(fit(jnp.array(x_nd), 5, jax.random.key(1), 8).labels)
    assert len(set(zip(points_n.tolist(), labels_n.tolist(), strict=True))) == 3


def test_kmeans_is_its_key():
    x_nd = jnp.array(blobs(np.random.default_rng(4))[0])
    first, again = (fit(x_nd, 7, jax.random.key(5)) for _ in range(2))
    np.testing.assert_array_equal(first.labels, again.labels)
