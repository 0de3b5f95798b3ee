"""How experts begin: as the base model, all with one A."""

import jax
import numpy as np

from modjax.train.optim import per_expert
from modjax.train.settings import Settings
from modjax.train.state import expert_keys, init_loras, init_state

SHAPES = {"attn.q": (64, 32), "mlp.down": (16, 8)}


def loras(n_experts, seed=0):
    return init_loras(jax.random.key(seed), n_experts, SHAPES, n_layers=2, rank=3)


def test_a_is_uniform_in_its_bound_and_b_zero():
    for site, (a, b) in loras(2).items():
        width, out = SHAPES[site]
        assert a.shape == (2, 2, 3, width) and b.shape == (2, 2, 3, out)
        bound = width**-0.5
        assert np.abs(a).max() <= bound and np.abs(a).max() > 0.9 * bound
        np.testing.assert_allclose(np.std(a), bound / 3**0.5, rtol=0.15)
        assert not np.any(b)


def test_all_experts_begin_alike_however_many_they_are():
    many, alone = loras(3), loras(1)
    for site in SHAPES:
        np.testing.assert_array_equal(many[site].a, np.repeat(alone[site].a, 3, axis=1))


def test_seeds_sites_and_layers_differ():
    first, other = loras(2), loras(2, seed=1)
    a = first["attn.q"].a
    assert not np.allclose(a[0], a[1])
    assert not np.allclose(a, other["attn.q"].a)
    assert not np.allclose(a[..., :16], first["mlp.down"].a)


def test_keys_are_those_of_the_seeds():
    from modjax.data.loader import key_of

    data = jax.random.key_data(expert_keys(("x", "y"), 5))
    np.testing.assert_array_equal(data[1], jax.random.key_data(jax.random.key(key_of("y", 5))))


def test_the_state_holds_copies_so_that_it_may_be_donated():
    mine = loras(1)
    settings = Settings(patience=1, evaluate_every=1)
    state = init_state(mine, per_expert(settings), settings)
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)
    assert np.isfinite(mine["attn.q"].a).all()


def test_without_early_stopping_no_best_arrays_are_kept():
    assert init_state(loras(1), per_expert(Settings()), Settings()).best is None
