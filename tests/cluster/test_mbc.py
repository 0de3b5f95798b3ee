import dataclasses
import json

import jax
import numpy as np
import pytest
from references import clustering as reference
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from modjax.cluster import Clusters, adjusted_rand, embedding, mbc, random, similarity, sweep
from modjax.errors import InputError
from modjax.experts.library import Library

SITES = {"attn.q": (16, 12), "mlp.down": (10, 16)}


def noisy_copies(clusters, each, seed=0):
    """(library, cluster of each expert): copies of a few experts, each with some noise."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(clusters), each))

    def factor(width):
        centers = rng.normal(size=(2, clusters, 2, width))
        return centers[:, labels] + 0.5 * rng.normal(size=(2, len(labels), 2, width))

    tasks = [(f"task{i}", "common") for i in range(len(labels))]
    return Library.from_arrays({site: (factor(i), factor(o)) for site, (i, o) in SITES.items()}, tasks=tasks), labels


@pytest.fixture(scope="module")
def planted():
    return noisy_copies(4, each=5)


@pytest.mark.parametrize("clusters, each, seed", [(2, 6, 1), (3, 4, 2), (4, 5, 0), (7, 3, 3)])
def test_planted_clusters_are_found(clusters, each, seed):
    library, labels = noisy_copies(clusters, each, seed)
    found = mbc(library, clusters)
    theirs = KMeans(clusters, n_init=10, random_state=42).fit(np.float64(found.similarity))
    assert adjusted_rand_score(found.labels, labels) == adjusted_rand_score(found.labels, theirs.labels_) == 1.0
    np.testing.assert_allclose(found.inertia, theirs.inertia_, rtol=1e-4)


@pytest.mark.parametrize("clusters", [2, 3, 6])
@pytest.mark.parametrize("seed", range(3))
def test_mbc_is_never_worse_than_scikit_learn_on_the_same_similarity(random_library, clusters, seed, agrees):
    """On experts without structure, where each start ends in another optimum."""
    found = mbc(random_library(SITES, experts=14, seed=seed), clusters, sparsity=0.8)
    s_EE = np.float64(found.similarity)
    theirs = KMeans(clusters, n_init=10, random_state=seed).fit(s_EE)
    ours = reference.inertia(s_EE, found.labels)
    assert ours <= reference.inertia(s_EE, theirs.labels_) * (1 + 1e-6)
    agrees("MBC inertia", found.inertia, ours)


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


def test_more_starts_of_kmeans_find_better_clusters(random_library):
    library = random_library(SITES, experts=40)
    vectors = {task: row_E for (task,), row_E in zip(library.tasks, similarity(library), strict=True)}
    for find in (
        lambda restarts: mbc(library, 9, restarts=restarts),
        lambda restarts: sweep(library, [9], restarts=restarts).clusters[9],
        lambda restarts: embedding(library, vectors, 9, restarts=restarts),
    ):
        assert find(1).inertia > find(16).inertia


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
    [
        ({"clusters": 0}, "clusters=0"),
        ({"clusters": 4}, "expected 1 to 3"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"restarts": 0}, "restarts=0"),
        ({"clusters": 2.0}, "clusters=2.0: expected a whole number"),
        ({"components": 0}, "components=0: expected a whole number, at least 1"),
        ({"components": -1}, "components=-1"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_settings(random_library, fields, words):
    with pytest.raises(InputError, match=words):
        mbc(random_library(SITES), **({"clusters": 2} | fields))


def test_fewer_clusters_than_asked_for_are_told(random_library):
    library = random_library(SITES)
    same = dataclasses.replace(library, loras=jax.tree.map(lambda leaf: leaf[:, :1].repeat(3, 1), library.loras))
    with pytest.warns(UserWarning, match="clusters=2: found only 1, as some experts are alike"):
        assert mbc(same, np.int64(2)).names == {0: ["expert0", "expert1", "expert2"]}


def test_an_expert_whose_training_failed_keeps_its_tasks_in_a_cluster(random_library):
    library = random_library(SITES)
    failed = dataclasses.replace(library.infos[1], failed=2)
    marked = dataclasses.replace(library, infos=(library.infos[0], failed, library.infos[2]))
    with pytest.warns(UserWarning, match="compared by the arrays that they keep: expert1"):
        found = mbc(marked, 2)
    np.testing.assert_array_equal(found.labels, mbc(library, 2).labels)
    assert {task for tasks in found.groups(marked).values() for task in tasks} == set(library.names)


def test_random_clusters_have_the_sizes_of_others_and_are_their_seed(planted):
    like = mbc(planted[0], clusters=4)
    found, again, other = random(like, seed=1), random(like, seed=1), random(like, seed=2)
    assert sorted(map(len, found.names.values())) == sorted(map(len, like.names.values()))
    assert found.experts == like.experts and found.labels[0] == 0
    np.testing.assert_array_equal(found.labels, again.labels)
    assert (found.labels != other.labels).any() and abs(adjusted_rand(found, like)) < 0.5
    assert sorted(task for own in found.groups(planted[0]).values() for task in own if task != "common") == sorted(
        f"task{i}" for i in range(20)
    )


def test_random_clusters_have_the_inertia_of_their_own_labels(planted, agrees):
    found = random(mbc(planted[0], clusters=4))
    agrees("inertia of random clusters", found.inertia, reference.inertia(np.float64(found.similarity), found.labels))
    assert found.inertia > mbc(planted[0], clusters=4).inertia


@pytest.fixture(scope="module")
def vectors():
    """{task: float[8]}: three directions plus a large common vector, as in hidden states."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(3, 8))
    vectors = {f"task{i}": 30 + (1 + i) * centres[i % 3] + 0.02 * rng.normal(size=8) for i in range(20)}
    return vectors | {"common": np.full(8, 30.0)}


def test_embedding_clusters_are_those_of_the_tasks_texts(random_library, vectors, agrees):
    library = random_library(SITES, experts=20, tasks=[(f"task{i}",) for i in range(20)])
    found = embedding(library, vectors, clusters=3)
    points_ED = reference.embedding_points(np.stack([vectors[f"task{i}"] for i in range(20)]))
    agrees("embedding similarity", found.similarity, points_ED @ points_ED.T)
    agrees("embedding inertia", found.inertia, reference.inertia(points_ED, found.labels))
    assert found.inertia <= KMeans(3, n_init=10, random_state=0).fit(points_ED).inertia_ * (1 + 1e-5)


def test_uncentred_embeddings_differ_in_nothing_but_the_mean(random_library, vectors):
    library = random_library(SITES, experts=20, tasks=[(f"task{i}",) for i in range(20)])
    centred, plain = (embedding(library, vectors, clusters=3, centre=choice) for choice in (True, False))
    assert plain.similarity.min() > 0.3 > centred.similarity.min()


def test_an_expert_of_several_tasks_has_the_mean_of_their_vectors(random_library, vectors):
    own = [("task0", "common"), ("task1",), ("task2",)]
    library = random_library(SITES, tasks=own)
    means = {"task0": (vectors["task0"] + vectors["common"]) / 2} | {name: vectors[name] for name in ("task1", "task2")}
    alone = random_library(SITES, tasks=[(name,) for name in means])
    np.testing.assert_allclose(embedding(library, vectors, 2).similarity, embedding(alone, means, 2).similarity)


def test_a_task_without_a_vector_is_named(random_library, vectors):
    library = random_library(SITES, tasks=[("task0",), ("tusk",), ("task2",)])
    with pytest.raises(InputError, match="no vector for task 'tusk'"):
        embedding(library, vectors, 2)
    with pytest.raises(InputError, match="shapes"):
        embedding(library, vectors | {"tusk": np.zeros(3)}, 2)


@pytest.fixture
def clusters_file(tmp_path):
    """A function that writes a clusters.json with some keys changed."""
    whole = {"experts": ["a", "b"], "labels": [3, 1], "similarity": [[1, 0.5], [0.5, 1]], "inertia": 0.25}

    def write(**changes):
        path = tmp_path / "clusters.json"
        path.write_text(json.dumps({key: value for key, value in (whole | changes).items() if value is not ...}))
        return path

    return write


def test_clusters_are_read_from_their_file(clusters_file):
    found = Clusters.load(clusters_file())
    assert found.labels.tolist() == [0, 1] and found.names == {0: ["a"], 1: ["b"]} and found.experts == ("a", "b")
    assert found.inertia == 0.25 and found.similarity.tolist() == [[1, 0.5], [0.5, 1]]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"labels": [0]}, "one per expert"),
        ({"labels": [0, "x"]}, "one per expert"),
        ({"experts": ...}, "one per expert"),
        ({"experts": []}, "one per expert"),
        ({"similarity": [[1, 0.5]]}, r"shape \(1, 2\)"),
        ({"similarity": [[1], [0.5, 1]]}, "not numbers"),
        ({"inertia": None}, "not numbers"),
    ],
)
def test_files_that_hold_no_clusters_are_refused(clusters_file, changes, words):
    with pytest.raises(InputError, match=words):
        Clusters.load(clusters_file(**changes))
