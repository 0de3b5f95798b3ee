"""How experts begin: as the base model, all with one A."""

import jax
import numpy as np
import pytest

from modjax.train.lora import init_factors
from modjax.train.settings import Settings

SITES = ("attn.q", "mlp.down")


@pytest.fixture
def loras(word_model):
    """loras(number of experts, seed): experts as they begin."""

    def make(n_experts, seed=0):
        return init_factors(jax.random.key(seed), n_experts, word_model.config, Settings(rank=3, sites=SITES))

    return make


def test_a_is_uniform_in_its_bound_and_b_zero(loras, word_model):
    for site, (a, b) in loras(2).items():
        width, out = word_model.config.sites[site]
        assert a.shape == (2, 2, 3, width) and b.shape == (2, 2, 3, out)
        bound = width**-0.5
        assert np.abs(a).max() <= bound and np.abs(a).max() > 0.9 * bound
        np.testing.assert_allclose(np.std(a), bound / 3**0.5, rtol=0.15)
        assert not np.any(b)


def test_all_experts_begin_alike_however_many_they_are(loras):
    many, alone = loras(3), loras(1)
    for site in SITES:
        np.testing.assert_array_equal(many[site].a, np.repeat(alone[site].a, 3, axis=1))


def test_seeds_sites_and_layers_differ(loras):
    first, other = loras(2), loras(2, seed=1)
    a = first["attn.q"].a
    assert not np.allclose(a[0], a[1])
    assert not np.allclose(a, other["attn.q"].a)
    assert not np.allclose(a, first["mlp.down"].a[..., : a.shape[-1]])


def test_of_a_shared_a_only_b_is_trained(train, word_model):
    """Each expert's B moves as its own data say; A stays what all began with."""
    library = train(shared_a=True, steps=3)
    start = init_factors(jax.random.key(0), 1, word_model.config, Settings(rank=2, sites=SITES))
    for site, (a, b, _) in library.loras.items():
        for e in range(a.shape[1]):
            np.testing.assert_array_equal(a[:, e], start[site].a[:, 0])
        assert b.shape[1] == 4 and np.abs(b).max(axis=(0, 2, 3)).min() > 1e-4


def test_experts_of_a_shared_a_are_trained_as_each_alone(train):
    together, alone = train(shared_a=True), train({"sort": ("sort",)}, shared_a=True)
    for site, lora in together.loras.items():
        np.testing.assert_allclose(lora.b[:, 2], alone.loras[site].b[:, 0], rtol=0, atol=1e-6)


def test_a_run_of_a_shared_a_goes_on_from_its_experts(train):
    first = train(shared_a=True)
    again = train(shared_a=True, init=first, learning_rate=0.0)
    for site, lora in first.loras.items():
        np.testing.assert_array_equal(again.loras[site].b, lora.b)
        np.testing.assert_array_equal(again.loras[site].a, lora.a)
