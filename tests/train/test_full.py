"""Full fine-tuning by the step that trains experts."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding

from modjax.data import loader
from modjax.data.rows import Rows, pack
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.models import weights
from modjax.models.weights import quantised
from modjax.ops.losses import target_losses
from modjax.parallel import rules
from modjax.parallel.mesh import make_mesh
from modjax.train.full import train_full
from modjax.train.settings import Settings
from tests.train.test_optim import schedule


@pytest.fixture(scope="module")
def full(word_model, word_tasks, small):
    """full(...): the tiny model, trained on the word tasks."""

    def run(model=word_model, **settings):
        return train_full(model, word_tasks, progress=False, **(small | {"learning_rate": 1e-3} | settings))

    return run


def test_it_is_plain_training_of_all_weights(full, word_model, word_tasks, small):
    settings = Settings(**(small | {"learning_rate": 1e-3, "steps": 3}))
    encoded = [
        one for task in word_tasks.values() for one in encode(word_model.tokenizer, task, task.split("train"), 32)
    ]
    batches = loader.batches({"full": pack(encoded, 32, seed=loader.key_of("full", 0))}, settings.batch, 3, 0)
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule(settings), weight_decay=0.0))
    params = word_model.params
    opt_state = chain.init(params)

    @jax.jit
    def step(params, opt_state, rows):
        def loss(params):
            hidden_BTD = params(rows.tokens, rows.positions, rows.ends)
            losses_BM = target_losses(params.logits, hidden_BTD, rows.at, rows.labels)
            return (losses_BM * rows.weights).sum() / rows.weights.sum()

        updates, opt_state = chain.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for batch in batches:
        params, opt_state = step(params, opt_state, Rows(*(field[0] for field in batch)))
    got = full(steps=3)
    for leaf, expected in zip(jax.tree.leaves(got.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=2e-5)
    assert got.fingerprint != word_model.fingerprint


def test_a_finished_run_is_read_back(full, tmp_path):
    first, again = (full(workdir=tmp_path, save_every=3) for _ in range(2))
    assert first.fingerprint == again.fingerprint


def test_weights_and_moments_lie_on_the_mesh_as_the_models_do(full, word_model):
    layout = rules.layout(make_mesh(expert=1, fsdp=4, tensor=2))
    leaves = [jax.device_put(leaf, layout(path, leaf)) for path, leaf in weights.leaves(word_model.params).items()]
    params = jax.tree.unflatten(jax.tree.structure(word_model.params), leaves)
    model = dataclasses.replace(word_model, params=params, mesh=make_mesh(expert=1, fsdp=4, tensor=2))
    # Adam makes whole steps of gradients that are mere rounding: what differs there is bounded by the rate.
    got, alone = (full(one, batch=4, learning_rate=1e-4) for one in (model, word_model))
    for (path, leaf), expected in zip(weights.leaves(got.params).items(), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(leaf, expected, atol=1e-5)
        assert isinstance(leaf.sharding, NamedSharding) and leaf.sharding == layout(path, leaf)


def test_quantised_weights_are_refused(full, word_model):
    small = dataclasses.replace(word_model, params=quantised(word_model.params, "int8"))
    with pytest.raises(InputError, match="quantised weights cannot be trained"):
        full(small)
