"""How a state begins, and the keys of its members."""

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.loader import key_of
from modjax.ops.lora import Factors
from modjax.train.optim import per_expert
from modjax.train.settings import Settings
from modjax.train.step import init_state, member_keys


def loras(n_experts):
    return {"attn.q": Factors(jnp.ones((2, n_experts, 3, 8)), jnp.zeros((2, n_experts, 3, 6)))}


def test_keys_are_those_of_the_seeds():
    data = jax.random.key_data(member_keys(("x", "y"), 5))
    np.testing.assert_array_equal(data[1], jax.random.key_data(jax.random.key(key_of("y", 5))))


def test_the_state_holds_copies_so_that_it_may_be_donated():
    mine = loras(1)
    settings = Settings(patience=1, evaluate_every=1)
    state = init_state(mine, 1, per_expert(settings), settings)
    jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)
    assert np.isfinite(mine["attn.q"].a).all()


def test_without_early_stopping_no_best_arrays_are_kept():
    assert init_state(loras(1), 1, per_expert(Settings()), Settings()).best is None
