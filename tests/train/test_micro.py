"""Groups of experts and rows give what the whole batch gives: losses, gradients, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modjax.adapt.cat import CatTraining
from modjax.data.rows import Rows
from modjax.train.full import FullTraining
from modjax.train.gates import GateTraining
from modjax.train.lora import LoRATraining, SharedATraining
from modjax.train.micro import Groups
from modjax.train.optim import Lengths, per_expert
from modjax.train.poly import PolyTraining, init_skills
from modjax.train.settings import Settings
from modjax.train.step import init_state, loss_sums, member_keys, train_step

SITES = ("attn.q", "attn.k", "mlp.down")
B, T, M = 3, 8, 5


def batch_of(n_experts):
    """Rows of two examples each, with different numbers of targets."""
    rng = np.random.default_rng(0)
    shape = (n_experts, B, T)
    ends = np.broadcast_to(np.repeat([T // 2, T], T // 2), shape).astype(np.int32)
    positions = np.broadcast_to(np.tile(np.arange(T // 2), 2), shape).astype(np.int32)
    at = np.sort(rng.integers(0, T - 1, (n_experts, B, M))).astype(np.int32)
    labels = rng.integers(0, 64, at.shape).astype(np.int32)
    weights = rng.integers(0, 2, at.shape).astype(np.float32)
    task = rng.integers(0, 2, (n_experts, B, 1)).astype(np.int32)
    return Rows(rng.integers(0, 64, shape).astype(np.int32), positions, ends, at, labels, weights, task)


def poly(model, settings, library):
    start = init_skills(jax.random.key(1), model.config, settings, skills=2, heads=2, tasks=2)
    return 1, PolyTraining(start, dict.fromkeys(SITES, np.ones((2, 1, 2), np.float32)), 100.0, settings)


KINDS = {
    "lora": lambda model, settings, library: (3, LoRATraining(model.config, settings, 3)),
    "shared_a": lambda model, settings, library: (3, SharedATraining(model.config, settings, 3)),
    "gates": lambda model, settings, library: (3, GateTraining(library)),
    "cat": lambda model, settings, library: (3, CatTraining(library, "site", 3)),
    "poly": poly,
    "full": lambda model, settings, library: (1, FullTraining(model.params)),
}


@pytest.fixture
def results(word_model, random_library):
    """results(kind, micro): a validation's sums, and metrics and gradients (as first moments) of a step."""
    library = random_library({site: word_model.config.sites[site] for site in SITES}, experts=3)

    def run(kind, micro):
        settings = Settings(steps=4, rank=2, sites=SITES, tie=(SITES[:2],), dropout=0.3, clip=1e6, micro=micro)
        experts, recipe = KINDS[kind](word_model, settings, library)
        trained = recipe.start(jax.random.key(0), recipe.given, experts)
        trained = jax.tree.map(lambda leaf: leaf + 0.01, trained)  # B not zero, so that A has gradients at once
        optimizer, fixed = per_expert(settings, recipe.rates), {"recipe": recipe, "settings": settings}
        state, keys_E = init_state(trained, experts, optimizer, settings), member_keys(tuple("abc"[:experts]), 0)
        lengths = Lengths.of(settings, [settings.steps] * experts)
        frozen, batch = jax.tree.map(jnp.asarray, recipe.frozen), batch_of(experts)

        @jax.jit
        def both(state):
            sums = loss_sums(word_model.params, state.trained, frozen, batch, **fixed)
            step = functools.partial(train_step, optimizer=optimizer, **fixed)
            state, metrics = step(word_model.params, state, batch, keys_E, lengths, frozen)
            return sums, metrics, optax.tree.get(state.opt_state, "mu")

        return both(state)

    return run


@pytest.mark.parametrize(("kind", "micro"), [("lora", 7), *((kind, 2) for kind in KINDS)])
def test_groups_give_what_the_whole_gives(results, kind, micro):
    """Two experts at a time of three, or two rows at a time of three."""
    for found, whole in zip(results(kind, micro), results(kind, 0), strict=True):
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(whole))
        for leaf, expected in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            np.testing.assert_allclose(leaf, expected, rtol=0, atol=2e-5 * largest)


@pytest.mark.parametrize(
    ("E", "B", "micro", "experts", "rows", "number"),
    [
        (5, 2, 0, 5, 2, 1),
        (5, 2, 10, 5, 2, 1),
        (5, 2, 9, 3, 2, 2),
        (5, 2, 3, 1, 2, 5),
        (5, 2, 1, 1, 1, 10),
        (1, 16, 7, 1, 6, 3),
    ],
)
def test_a_group_has_at_most_micro_rows(E, B, micro, experts, rows, number):
    groups = Groups.of(E, B, micro, None)
    assert (groups.experts, groups.rows, groups.number) == (experts, rows, number)
