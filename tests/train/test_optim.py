"""The schedule against its formula, and one optimiser an expert against optax alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modjax.ops.lora import Factors
from modjax.train.optim import Lengths, per_expert, rates
from modjax.train.settings import Settings

E = 3


def schedule(settings):
    """The rate of each step of one expert, for optax."""
    (steps,), (warm,) = Lengths.of(settings, [settings.steps])
    return lambda i: rates(settings, Lengths(steps, warm), i)


@pytest.mark.parametrize(("steps", "warm"), [(100, 6), (1000, 60), (10, 1), (1, 1)])
def test_warm_up_over_six_percent_then_down_to_zero(steps, warm):
    rate = schedule(Settings(steps=steps, learning_rate=1e-2))
    rates = np.asarray([rate(i) for i in range(steps + 1)])
    up = [1e-2 * (i + 1) / warm for i in range(warm)]
    down = [1e-2 * (steps - i) / (steps - warm + 1) for i in range(warm, steps + 1)]
    np.testing.assert_allclose(rates, up + down, rtol=1e-6, atol=1e-12)
    assert rates.argmax() == warm - 1 and rates[-1] == 0


@pytest.fixture
def params():
    keys = jax.random.split(jax.random.key(0), 2)
    return {"attn.q": Factors(jax.random.normal(keys[0], (2, E, 4, 8)), jax.random.normal(keys[1], (2, E, 4, 6)))}


def grads_of(params, step):
    """Expert 0 has small gradients, expert 1 enormous ones."""
    size_E = jnp.asarray([1e-3, 1e3, 1.0])[None, :, None, None]
    return jax.tree.map(lambda leaf: size_E * jax.random.normal(jax.random.key(step), leaf.shape), params)


def expert(tree, e):
    return jax.tree.map(lambda leaf: leaf[:, e], tree)


def trained(optimizer, params, grads, rate_of=lambda step: {}):
    state = optimizer.init(params)
    for step, grad in enumerate(grads):
        updates, state = jax.jit(optimizer.update)(grad, state, params, **rate_of(step))
        params = optax.apply_updates(params, updates)
    return params


def test_each_expert_is_updated_as_by_its_own_optimiser(params):
    """Clipping by its own norm, its own moments, its own decay, its own number of steps."""
    settings = Settings(learning_rate=1e-2, weight_decay=0.1, clip=1.0)
    grads = [grads_of(params, step) for step in range(3)]
    steps = [5, 3, 40]
    lengths = Lengths.of(settings, steps)
    together = trained(per_expert(settings), params, grads, lambda step: {"rate_E": rates(settings, lengths, step)})
    for e in range(E):
        own = dataclasses.replace(settings, steps=steps[e])
        one = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule(own), weight_decay=0.1))
        alone = trained(one, expert(params, e), [expert(grad, e) for grad in grads])
        for leaf, expected in zip(jax.tree.leaves(expert(together, e)), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-7)


def test_decay_shrinks_an_expert_without_gradients(params):
    settings, rate_E = Settings(weight_decay=0.5), jnp.full(E, 1e-2)
    grads = [jax.tree.map(jnp.zeros_like, params)]
    (lora,) = trained(per_expert(settings), params, grads, lambda step: {"rate_E": rate_E}).values()
    np.testing.assert_allclose(lora.a, params["attn.q"].a * (1 - 0.005), rtol=1e-6)


def test_every_leaf_of_the_state_has_its_expert_axis(params):
    for leaf in jax.tree.leaves(per_expert(Settings()).init(params)):
        assert leaf.shape == (E,) or leaf.shape[1] == E
