import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import clustering as reference

from modjax.cluster import cross_similarity, mbc, similarity
from modjax.errors import InputError

SITES = {"attn.q": (16, 12), "mlp.down": (10, 16)}


@pytest.fixture
def mixed_ranks(random_library):
    small = random_library(SITES, experts=4, rank=2, names=list("abcd"))
    return small + random_library(SITES, experts=3, rank=5, seed=1)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("components", [2, 4, 7, 64])
def test_similarity_equals_the_steps(mixed_ranks, sparsity, components, agrees):
    expected_EE = reference.similarity(reference.sparse_rows(mixed_ranks, sparsity), components)
    agrees("MBC similarity", similarity(mixed_ranks, sparsity, components), expected_EE)


@pytest.fixture
def shared_a(random_library):
    """Experts that share one A at every site: a[L,1,R,I] and b[L,E,R,O]."""
    own = random_library(SITES, experts=5)
    return dataclasses.replace(own, loras={site: lora._replace(a=lora.a[:, :1]) for site, lora in own.loras.items()})


@pytest.mark.parametrize("components", [3, 64])
def test_of_experts_that_share_their_a_the_b_alone_is_compared(shared_a, components, agrees):
    expected_EE = reference.similarity(reference.sparse_rows(shared_a, 0.5, sides="b"), components)
    agrees("MBC similarity, shared A", similarity(shared_a, 0.5, components), expected_EE)
    assert sum(map(len, mbc(shared_a, clusters=2).names.values())) == 5


def test_similarity_of_an_expert_of_zeros_is_finite(random_library):
    library = random_library(SITES)
    loras = jax.tree.map(lambda leaf: leaf.at[:, 1].set(0), library.loras)
    s_EE = np.asarray(similarity(dataclasses.replace(library, loras=loras)))
    assert np.isfinite(s_EE).all() and not s_EE[1].any()
    np.testing.assert_allclose(s_EE.diagonal()[[0, 2]], 1, rtol=1e-6)


def test_sites_and_layers_that_an_expert_lacks_do_not_count(random_library):
    """Zeros where an expert has no factors do not count in its quantile, so its similarity to itself is 1."""
    both = random_library(SITES, experts=3, names=list("abc"))
    few = random_library({"attn.q": SITES["attn.q"]}, experts=2, seed=1)
    lora = few.loras["attn.q"]
    few.loras["attn.q"] = lora._replace(a=lora.a.at[1, 0].set(0), b=lora.b.at[1, 0].set(0))
    got = similarity(both + few, 0.7, 64)

    def sparse(entries):
        entries = np.float64(entries).ravel()
        return np.where(np.abs(entries) > np.quantile(np.abs(entries[entries != 0]), 0.7), entries, 0)

    q, down = (few.loras["attn.q"].factors, jax.tree.map(jnp.zeros_like, both.loras["mlp.down"].factors))
    rows = [sparse(np.concatenate([np.ravel(leaf[:, e]) for leaf in (*q, *(d[:, :2] for d in down))])) for e in (0, 1)]
    rows += [
        sparse(np.concatenate([np.ravel(leaf[:, e]) for site in SITES for leaf in both.loras[site].factors]))
        for e in range(3)
    ]
    rows = np.stack(rows[2:] + rows[:2])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(got, rows @ rows.T, atol=2e-5)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_cross_similarity_is_that_of_one_library_with_both(random_library, sparsity, agrees):
    library = random_library(SITES, experts=4, rank=2, names=list("abcd"))
    new = random_library(SITES, experts=3, rank=5, seed=1)
    rows_EP = reference.sparse_rows(library + new, sparsity)
    got_NE = cross_similarity(new, library, sparsity)
    agrees("similarity with new experts", got_NE, reference.cosines(rows_EP[4:], rows_EP[:4]))
    np.testing.assert_allclose(got_NE, np.transpose(cross_similarity(library, new, sparsity)), atol=1e-6)


def test_cross_similarity_of_experts_of_other_sites(random_library):
    library = random_library(SITES, experts=3, names=list("abc"))
    few = random_library({"attn.q": SITES["attn.q"]}, experts=2, seed=1)
    both_EE = similarity(library + few, 0.7)
    np.testing.assert_allclose(cross_similarity(few, library, 0.7), both_EE[3:, :3], atol=1e-6)
    none = random_library({"attn.o": (16, 12)}, experts=1, seed=2)
    assert not cross_similarity(none, library).any()


@pytest.mark.parametrize("n_new", [1, 2])
def test_cross_similarity_where_either_shares_its_a_is_that_of_b(shared_a, random_library, n_new, agrees):
    new = random_library(SITES, experts=n_new, seed=3)
    new_NP, rows_EP = (reference.sparse_rows(one, 0.5, sides="b") for one in (new, shared_a))
    agrees("similarity with new experts", cross_similarity(new, shared_a), reference.cosines(new_NP, rows_EP))
    shared_too = dataclasses.replace(
        new, loras={site: lora._replace(a=lora.a[:, :1]) for site, lora in new.loras.items()}
    )
    np.testing.assert_allclose(cross_similarity(shared_too, shared_a), cross_similarity(new, shared_a), atol=1e-6)
    np.testing.assert_allclose(cross_similarity(shared_a, new), cross_similarity(new, shared_a).T, atol=1e-6)


def test_experts_of_another_model_are_refused(random_library):
    wide = random_library({"attn.q": (24, 12)}, experts=1)
    with pytest.raises(InputError, match="site attn.q.*do not fit one model"):
        cross_similarity(wide, random_library(SITES))


def test_sparsity_out_of_range_is_named(random_library):
    with pytest.raises(InputError, match="sparsity=-0.1"):
        similarity(random_library(SITES), sparsity=-0.1)


def test_no_copy_of_the_library_is_made(random_library):
    """Temporary memory is that of one layer: it does not grow with L."""
    from modjax.cluster.similarity import _similarity

    def temporary(layers):
        shape = jax.ShapeDtypeStruct((layers, 8, 2, 512), jnp.float32)
        compiled = _similarity.lower([shape] * 4, jax.ShapeDtypeStruct((8,), jnp.int32), 64).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(64) == temporary(4)
