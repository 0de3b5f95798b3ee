"""One step: plain LoRA training for one expert, and the verdicts on who goes on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modjax.data.rows import Rows
from modjax.train.lora import LoRATraining
from modjax.train.optim import Lengths, per_expert
from modjax.train.settings import Settings
from modjax.train.step import init_state, judge, loss_sums, member_keys, train_step, where_members
from tests.train.test_optim import schedule

SITES = ("attn.q", "mlp.down")
B, T, M = 2, 16, 5


@pytest.fixture(scope="module")
def decoder(word_model):
    return word_model.params


def batch_of(n_experts, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n_experts, B, T)
    ends = np.broadcast_to(np.repeat([T // 2, T], T // 2), shape).astype(np.int32)
    positions = np.broadcast_to(np.tile(np.arange(T // 2), 2), shape).astype(np.int32)
    at = np.sort(rng.integers(0, T - 1, (n_experts, B, M))).astype(np.int32)
    labels = rng.integers(0, 64, at.shape).astype(np.int32)
    weights = np.broadcast_to([1, 1, 1, 1, 0], at.shape).astype(np.float32)
    task = np.zeros((n_experts, B, 1), np.int32)
    return Rows(rng.integers(0, 64, shape).astype(np.int32), positions, ends, at, labels, weights, task)


def begin(decoder, n_experts, settings):
    keys_E = member_keys(tuple(f"e{i}" for i in range(n_experts)), 0)
    recipe = LoRATraining(decoder.config, settings, n_experts)
    loras = recipe.start(jax.random.key(0), None, n_experts)
    loras = jax.tree.map(lambda leaf: leaf + 0.01, loras)  # B not zero, so that A has gradients at once
    optimizer = per_expert(settings)
    step = jax.jit(functools.partial(train_step, recipe=recipe, optimizer=optimizer, settings=settings))
    given = keys_E, Lengths.of(settings, [settings.steps] * n_experts)
    return init_state(loras, n_experts, optimizer, settings), given, step


def frozen(decoder, n_experts, scale=2.0):
    """The scales of all experts."""
    return dict.fromkeys(SITES, jnp.full((decoder.config.L, n_experts), scale))


def plain_loss(decoder, loras, scale, rows):
    """Cross-entropy of a model whose kernels are W + scale A^T B, written without experts, masks and lists."""
    model = jax.tree.map(lambda leaf: leaf, decoder)  # a copy to write to
    for site, (a_LRI, b_LRO) in loras.items():
        half, name = site.split(".")
        kernel = getattr(getattr(model.blocks, half), name).kernel
        kernel[...] = kernel[...] + scale * jnp.einsum("lri,lro->lio", a_LRI, b_LRO)
    hidden_BTD = model(rows.tokens, rows.positions, rows.ends)
    logits_BTV = jax.nn.log_softmax(model.logits(hidden_BTD))
    losses_BM = -jnp.stack([logits_BTV[b, rows.at[b], rows.labels[b]] for b in range(B)])
    return jnp.sum(losses_BM * rows.weights) / jnp.sum(rows.weights)


def test_one_expert_is_plain_lora_training(decoder):
    optim = {"learning_rate": 1e-2, "weight_decay": 0.1, "clip": 0.5}
    settings = Settings(steps=4, batch=B, length=T, rank=3, alpha=6.0, sites=SITES, dropout=0.0, **optim)
    state, given, step = begin(decoder, 1, settings)
    params = jax.tree.map(lambda leaf: leaf[:, 0], {site: tuple(lora) for site, lora in state.trained.items()})
    chain = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule(settings), weight_decay=0.1))
    opt_state = chain.init(params)
    plain = jax.jit(jax.value_and_grad(lambda params, rows: plain_loss(decoder, params, 2.0, rows)))
    for i in range(3):
        batch = batch_of(1, seed=i)
        state, metrics = step(decoder, state, batch, *given, frozen(decoder, 1, 2.0))
        loss, grads = plain(params, Rows(*(field[0] for field in batch)))
        updates, opt_state = chain.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(metrics.loss_E, [loss], rtol=1e-5)
        np.testing.assert_allclose(metrics.grad_norm_E, [optax.tree.norm(grads)], rtol=1e-4)
    for site, expected in params.items():
        for leaf, like in zip(state.trained[site], expected, strict=True):
            np.testing.assert_allclose(leaf[:, 0], like, atol=2e-5)


def test_a_dropout_mask_belongs_to_its_experts_key(decoder):
    settings = Settings(steps=1, rank=2, sites=SITES, dropout=0.5)
    state, (keys_E, _), _ = begin(decoder, 2, settings)
    batch = jax.tree.map(lambda field: np.stack([field[0]] * 2), batch_of(1))
    same = jax.tree.map(lambda leaf: jnp.stack([leaf[:, 0]] * 2, axis=1), state.trained)
    fixed = {"recipe": LoRATraining(decoder.config, settings, 2), "settings": settings}
    losses = jax.jit(lambda keys_E: loss_sums(decoder, same, frozen(decoder, 2), batch, keys_E, **fixed)[0])
    still, dropped, swapped = losses(None), losses(keys_E), losses(keys_E[::-1])
    assert still[0] == still[1] and dropped[0] != dropped[1]
    np.testing.assert_allclose(swapped, dropped[::-1], rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_takes_its_expert_alone_back(decoder, value):
    """An update makes the arrays of one expert bad: it keeps those before it, the last whose loss was finite."""
    settings = Settings(steps=4, rank=2, sites=SITES, dropout=0.1)
    state, given, step = begin(decoder, 3, settings)
    state, _ = step(decoder, state, batch_of(3), *given, frozen(decoder, 3))
    spoilt = jax.tree.map(lambda leaf: leaf.at[0, 1, 0, 0].set(value), state.trained)
    before, runs = state.good, []
    for end in (state, state._replace(trained=spoilt)):
        for i in (1, 2):
            end, metrics = step(decoder, end, batch_of(3, seed=i), *given, frozen(decoder, 3))
        runs.append((end, metrics))
    (sound, _), (found, metrics) = runs
    np.testing.assert_array_equal(found.failed_E, [0, 2, 0])
    np.testing.assert_array_equal(metrics.active_E, [True, False, True])
    for field in ("trained", "good"):
        trees = (getattr(found, field), getattr(sound, field), before)
        for leaf, like, kept in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_array_equal(leaf[:, ::2], like[:, ::2])
            np.testing.assert_array_equal(leaf[:, 1], kept[:, 1])


def test_a_gradient_that_is_not_finite_keeps_the_arrays_of_its_finite_loss(decoder, monkeypatch):
    settings = Settings(steps=4, rank=2, sites=SITES, dropout=0.0)
    state, given, step = begin(decoder, 2, settings)

    def overflowing(grads):
        norm = optax_norm(grads)
        return jnp.where(norm > 0, jnp.inf, norm)

    optax_norm = optax.tree.norm
    monkeypatch.setattr("modjax.train.step.optax.tree.norm", overflowing)
    found, _ = step(decoder, state, batch_of(2), *given, frozen(decoder, 2))
    np.testing.assert_array_equal(found.failed_E, [1, 1])
    jax.tree.map(np.testing.assert_array_equal, (found.trained, found.good), (state.trained, state.trained))


@pytest.fixture
def judged(decoder):
    """A state of three experts at a time, and a judge with a patience of two."""
    settings = Settings(steps=4, rank=2, sites=SITES, evaluate_every=1, patience=2)
    state, *_ = begin(decoder, 3, settings)

    def after(state, *rounds, due=(True, True, True)):
        for i, losses in enumerate(rounds):
            marked = jax.tree.map(lambda leaf, mark=i: jnp.full_like(leaf, mark), state.trained)
            found = jnp.asarray(losses, jnp.float32), jnp.asarray(due)
            state = judge(state._replace(trained=marked), *found, settings)
        return state

    return functools.partial(after, state)


def test_the_best_arrays_are_each_experts_own(judged):
    state = judged([3, 1, 2], [2, 2, 2], [1, 3, 1])
    np.testing.assert_array_equal(state.lowest_E, [1, 1, 1])
    np.testing.assert_array_equal(state.best["attn.q"].a[0, :, 0, 0], [2, 0, 2])


def test_patience_counts_rounds_without_a_better_loss(judged):
    np.testing.assert_array_equal(judged([1, 1, 1], [2, 0, 1]).stale_E, [1, 0, 1])
    np.testing.assert_array_equal(judged([1, 1, 1], [2, 0, 1], [2, 2, 0.5]).active_E, [False, True, True])


def test_a_stopped_expert_stays_stopped(judged):
    state = judged([1, 1, 1], [2, 0, 0], [2, 0, 0], [0, 0, 0])
    np.testing.assert_array_equal(state.active_E, [False, False, False])
    np.testing.assert_array_equal(state.lowest_E, [1, 0, 0])


def test_a_validation_loss_that_is_nan_is_never_the_best(judged):
    state = judged([1, np.nan, 1], [np.nan, 1, 0])
    np.testing.assert_array_equal(state.lowest_E, [1, 1, 0])


def test_an_expert_that_is_not_due_is_not_judged(judged):
    state = judged([1, 1, 1], [2, 0, 2], [2, 0, 2], due=[True, False, False])
    np.testing.assert_array_equal(state.lowest_E, [1, np.inf, np.inf])
    np.testing.assert_array_equal(state.active_E, [False, True, True])


def test_experts_at_steps_of_their_own_move_as_alone(decoder):
    """The second has done two steps when the first begins; one that has done all its steps is only measured."""
    settings = Settings(steps=3, rank=2, sites=SITES, dropout=0.5, learning_rate=1e-2)
    state, given, step = begin(decoder, 2, settings)
    whole = [state]
    for seed in range(4):
        whole.append(
            step(decoder, jax.tree.map(jnp.copy, whole[-1]), batch_of(2, seed=seed), *given, frozen(decoder, 2))[0]
        )
    first, second = np.asarray([True, False]), np.asarray([False, True])
    mixed = where_members(first, whole[0], whole[2])
    for number in range(2):
        one, other = batch_of(2, number), batch_of(2, number + 2)
        rows = Rows(*(np.concatenate([a[:1], b[1:]]) for a, b in zip(one, other, strict=True)))
        mixed, _ = step(decoder, mixed, rows, *given, frozen(decoder, 2))
        expected = where_members(second, whole[number + 3], whole[number + 1])
        for leaf, like in zip(*map(jax.tree.leaves, (mixed, expected)), strict=True):
            np.testing.assert_allclose(leaf, like, atol=1e-6)
    for leaf, like in zip(*map(jax.tree.leaves, (whole[4].trained, whole[3].trained)), strict=True):
        np.testing.assert_array_equal(leaf, like)
