"""A prefix tree equals its examples one by one, loss and gradient, for everything that is trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.data.rows import filled, pack, stacked
from modjax.data.tokenize import Encoded
from modjax.train.full import FullTraining
from modjax.train.gates import GateTraining
from modjax.train.lora import LoRATraining, SharedATraining
from modjax.train.poly import PolyTraining, init_skills
from modjax.train.settings import Settings
from modjax.train.step import loss_sums

SITES = ("attn.q", "mlp.down")
SETTINGS = Settings(rank=2, alpha=8.0, sites=SITES, dropout=0.0, length=32)
MEMBERS = 2


def poly(config, heads):
    start = init_skills(jax.random.key(0), config, SETTINGS, 3, heads, MEMBERS)
    one = dict.fromkeys(SITES, np.full((config.L, 1, 3), 4.0, np.float32))
    weights_KEHS = jnp.tile(start["weights"], (1, MEMBERS, 1, 1))
    skills = jax.tree.map(lambda leaf: jnp.tile(leaf, (1, MEMBERS, 1, 1, 1)), start["skills"])
    return PolyTraining({"weights": weights_KEHS, "skills": skills}, one, 100.0, SETTINGS)


def gates(config, random_library):
    return GateTraining(random_library({site: config.sites[site] for site in SITES}, experts=MEMBERS))


KINDS = {
    "lora": lambda model, library: LoRATraining(model.config, SETTINGS, MEMBERS),
    "shared A": lambda model, library: SharedATraining(model.config, SETTINGS, MEMBERS),
    "poly": lambda model, library: poly(model.config, 1),
    "mhr": lambda model, library: poly(model.config, 4),
    "gates": lambda model, library: gates(model.config, library),
    "full": lambda model, library: FullTraining(model.params),
}


@pytest.fixture(scope="module")
def examples():
    """Of each member ten examples, which begin with some of the same tokens."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(MEMBERS):
        start, more = rng.integers(4, 64, 8), rng.integers(4, 64, 4)
        parts = [[start, more] if i % 3 else [start] for i in range(10)]
        parts = [[*part, rng.integers(4, 64, rng.integers(4, 9))] for part in parts]
        found.append([Encoded(np.concatenate(part).astype(np.int32), len(start) + 2) for part in parts])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_equals_its_examples_one_by_one(word_model, random_library, examples, kind):
    recipe = KINDS[kind](word_model, random_library)
    members = 1 if kind == "full" else MEMBERS
    # Not where training starts, so that every array has a gradient.
    start = jax.tree.map(lambda leaf: leaf + 0.02, recipe.start(jax.random.key(0), recipe.given, members))
    frozen = jax.tree.map(jnp.asarray, recipe.frozen)
    task = {"task": 1} if recipe.by_task else {}
    trees = stacked(pack(own, 32, seed=1, **task) for own in examples[:members])
    alone = stacked(stacked(filled([one], 32, **task) for one in own) for own in examples[:members])
    assert (trees.ends > 0).sum() < 0.75 * (alone.ends > 0).sum()

    @jax.jit
    @jax.value_and_grad
    def summed(trained, rows):
        total_E, count_E = loss_sums(word_model.params, trained, frozen, rows, recipe=recipe, settings=SETTINGS)
        return jnp.sum(total_E / count_E)

    got, expected = (summed(start, jax.tree.map(jnp.asarray, rows)) for rows in (trees, alone))
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    for leaf, like in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        assert np.abs(like).max() > 1e-5
        np.testing.assert_allclose(leaf, like, rtol=1e-4, atol=1e-6 * max(1, np.abs(like).max()))
