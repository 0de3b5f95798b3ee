import dataclasses

import numpy as np
import pytest
from references import clustering as reference

from modjax.cluster import Clusters, mbc, nearest
from modjax.errors import InputError
from modjax.experts.library import Library

SITES = {"attn.q": (16, 12), "mlp.down": (10, 16)}


@pytest.fixture(scope="module")
def planted():
    """(library, new experts, cluster of each expert in both): noisy copies of three experts."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([rng.permutation(np.repeat(np.arange(3), 4)), [2, 0, 1]])

    def factor(width):
        centres = rng.normal(size=(2, 3, 2, width))
        return centres[:, labels] + 0.7 * rng.normal(size=(2, 15, 2, width))

    library = Library.from_arrays({site: (factor(i), factor(o)) for site, (i, o) in SITES.items()})
    return library[:12], library[12:], labels


def test_new_experts_go_to_the_cluster_they_come_from(planted):
    library, new, labels = planted
    clusters = mbc(library, clusters=3)
    found = nearest(clusters, library, new)
    for label, planted_label in zip(found.labels, labels[12:], strict=True):
        assert set(labels[:12][clusters.labels == label]) == {planted_label}


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_similarity_with_a_cluster_is_the_mean_over_its_members(planted, sparsity, agrees):
    library, new, _ = planted
    clusters = mbc(library, clusters=3, sparsity=sparsity)
    rows_EP = reference.sparse_rows(library + new, sparsity)
    expected_NC = reference.nearest(reference.cosines(rows_EP[12:], rows_EP[:12]), clusters.labels)
    found = nearest(clusters, library, new, sparsity)
    agrees("nearest cluster", found.similarity, expected_NC)
    np.testing.assert_array_equal(found.labels, expected_NC.argmax(axis=1))


def test_one_new_expert_is_placed_as_it_is_among_others(planted):
    library, new, _ = planted
    clusters = mbc(library, clusters=3)
    whole = nearest(clusters, library, new)
    alone = nearest(clusters, library, new[1])
    assert alone.labels.tolist() == [whole.labels[1]]
    np.testing.assert_allclose(alone.similarity[0], whole.similarity[1], rtol=1e-6)


def test_the_librarys_order_and_its_other_experts_do_not_matter(planted):
    library, new, _ = planted
    clusters = mbc(library[:8], clusters=3)
    expected = nearest(clusters, library[:8], new)
    found = nearest(clusters, library[[9, *range(7, -1, -1)]], new)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-6)


def test_an_expert_that_the_library_lacks_is_named(planted):
    library, new, _ = planted
    clusters = mbc(library, clusters=3)
    with pytest.raises(InputError, match="no expert 'expert0'"):
        nearest(clusters, library[1:], new)
    strangers = dataclasses.replace(clusters, names={0: [f"stranger{i}" for i in range(12)]}, labels=np.zeros(12, int))
    with pytest.raises(InputError, match="no expert 'stranger0'"):
        nearest(strangers, library, new)


def test_an_expert_among_the_members_goes_to_its_own_cluster(planted):
    library, _, labels = planted
    clusters = Clusters.of(library.names, labels[:12], np.eye(12), 0.0)
    np.testing.assert_array_equal(nearest(clusters, library, library).labels, clusters.labels)
