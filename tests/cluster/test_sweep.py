import numpy as np
import pytest
from references import clustering as reference
from scipy.cluster.hierarchy import fcluster
from sklearn.metrics import silhouette_score

from modjax.cluster import Clusters, adjusted_rand, dendrogram, mbc, silhouette, sweep
from modjax.errors import InputError

SITES = {"attn.q": (16, 12), "mlp.down": (10, 16)}


def partition(labels, names=None, similarity_EE=None):
    names = names or [f"expert{i}" for i in range(len(labels))]
    return Clusters.of(names, labels, np.eye(len(labels)) if similarity_EE is None else similarity_EE, 0.0)


@pytest.fixture(scope="module")
def library(random_library):
    return random_library(SITES, experts=9)


@pytest.mark.parametrize("seed", range(4))
def test_adjusted_rand_equals_the_count_of_pairs(seed, agrees):
    first, second = np.random.default_rng(seed).integers(0, 4, (2, 15))
    expected = reference.adjusted_rand(first, second)
    agrees("adjusted Rand index", adjusted_rand(partition(first), partition(second)), expected)
    agrees("adjusted Rand index", adjusted_rand(partition(first), [f"kind {label}" for label in second]), expected)


def test_adjusted_rand_goes_by_name_and_not_by_place():
    first = partition([0, 0, 1, 1], ["a", "b", "c", "d"])
    assert adjusted_rand(first, partition([5, 3, 5, 3], ["d", "a", "c", "b"])) == 1.0
    assert adjusted_rand(first, partition([0, 0, 1, 1], ["a", "c", "b", "d"])) == pytest.approx(-0.5)


def test_clusterings_of_different_experts_are_not_compared():
    with pytest.raises(InputError, match="only one has c, d"):
        adjusted_rand(partition([0, 1], ["a", "c"]), partition([0, 1], ["a", "d"]))
    with pytest.raises(InputError, match="3 kinds for 2 experts"):
        adjusted_rand(partition([0, 1]), ["x", "y", "z"])


@pytest.mark.parametrize("clusters", [2, 4, 8])
def test_silhouette_equals_its_definition(library, clusters, agrees):
    found = mbc(library, clusters)
    distance_EE = 1 - np.float64(found.similarity)
    agrees("silhouette", silhouette(found), reference.silhouette(distance_EE, found.labels))
    np.fill_diagonal(distance_EE, 0)
    assert silhouette(found) == pytest.approx(silhouette_score(distance_EE, found.labels, metric="precomputed"))


def test_there_is_no_silhouette_of_one_cluster_or_one_each(library):
    assert silhouette(mbc(library, 1)) is None and silhouette(mbc(library, 9)) is None


def test_a_sweep_is_mbc_for_each_number(library):
    families = ["even" if i % 2 == 0 else "odd" for i in range(9)]
    found = sweep(library, [5, 2, 9], sparsity=0.8, components=6, seed=3, families=families)
    assert list(found.clusters) == [2, 5, 9]
    for size, clusters in found.clusters.items():
        alone = mbc(library, size, sparsity=0.8, components=6, seed=3)
        np.testing.assert_array_equal(clusters.labels, alone.labels)
        assert clusters.inertia == alone.inertia and found.silhouette[size] == silhouette(alone)
        assert found.adjusted_rand[size] == adjusted_rand(alone, families)


def test_inertia_falls_with_the_number_of_clusters(library):
    found = sweep(library, [1, 2, 4, 9])
    inertias = [clusters.inertia for clusters in found.clusters.values()]
    assert inertias == sorted(inertias, reverse=True) and inertias[-1] < 1e-9
    assert found.adjusted_rand is None


@pytest.mark.parametrize(
    ("sizes", "words"),
    [([], "at least one number"), ([0, 2], "=0: expected 1 to 9"), ([2, 10], "=10: expected 1 to 9"), (3, "=3")],
)
def test_numbers_of_clusters_that_cannot_be_are_named(library, sizes, words):
    with pytest.raises(InputError, match=f"clusters.*{words}"):
        sweep(library, sizes)


def test_the_tree_joins_the_nearest_first():
    distance_EE = np.array([[0, 0.1, 0.5, 0.7], [0.1, 0, 0.4, 0.8], [0.5, 0.4, 0, 0.2], [0.7, 0.8, 0.2, 0]])
    tree = dendrogram(1 - distance_EE)
    np.testing.assert_allclose(tree, [[0, 1, 0.1, 2], [2, 3, 0.2, 2], [4, 5, 0.6, 4]], atol=1e-12)


def test_the_tree_of_separate_clusters_cuts_into_them():
    similarity_EE = np.kron(np.eye(3), np.full((4, 4), 0.6)) + 0.1 * np.random.default_rng(0).uniform(size=(12, 12))
    labels = fcluster(dendrogram(similarity_EE), 3, "maxclust")
    assert adjusted_rand(partition(labels), np.repeat(range(3), 4).tolist()) == 1.0


def test_one_expert_makes_no_tree():
    with pytest.raises(InputError, match="at least two"):
        dendrogram(np.ones((1, 1)))
