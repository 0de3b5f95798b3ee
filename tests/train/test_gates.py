import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.routing import gate_weights, opened, updates

from modjax.errors import InputError
from modjax.ops.lora import LoRA
from modjax.routing import Context, PhatGoose, phatgoose
from modjax.train.gates import GateTraining

SITES = ("attn.q", "mlp.down")
FAST = {"steps": 6, "learning_rate": 0.1, "length": 32, "progress": False}


@pytest.fixture(scope="module")
def library(word_model, random_library):
    sites = {site: word_model.config.sites[site] for site in SITES}
    return random_library(sites, experts=3, names=["copy", "sort", "count"], scale=[4.0, 1.0, 2.0])


@pytest.fixture(scope="module")
def trained(library, word_model, word_tasks):
    return phatgoose(library, word_model, word_tasks, **FAST)


@pytest.fixture(scope="module")
def x_BTI():
    return np.float32(np.random.default_rng(1).normal(size=(2, 7, 32)))


def test_weights_equal_the_definition(trained, x_BTI, agrees):
    for layer in range(2):
        one = jax.tree.map(lambda leaf, layer=layer: leaf[layer], trained)
        found = one("attn.q", x_BTI, Context()).dense(3)
        agrees("phatgoose", found, gate_weights(trained.gates["attn.q"][layer], x_BTI, 2))


@pytest.mark.parametrize("shared", [False, True])
def test_gates_open_the_frozen_expert(library, word_model, x_BTI, agrees, shared):
    """What training sees of one expert in one layer, A its own or that of all."""
    if shared:
        library = library.expanded()
        library.loras["attn.q"] = library.loras["attn.q"]._replace(a=library.loras["attn.q"].a[:, :1])
    recipe, rng = GateTraining(library), np.random.default_rng(2)
    gate_I = np.float32(rng.normal(size=32) / 4)
    own = {
        site: LoRA(lora.a[:, 1 % lora.a.shape[1]], lora.b[:, 1], lora.scale[:, 1])
        for site, lora in recipe.frozen.items()
    }
    _, arguments = recipe.attach(word_model.params, {site: jnp.zeros((2, 32)) for site in SITES}, own, None, None)
    layer = jax.tree.map(lambda leaf: leaf[0], (own, {"attn.q": gate_I[None]}))
    got_BTO = arguments["adapt"](layer, ("attn.q", "attn.k"), jnp.asarray(x_BTI))["attn.q"]
    agrees("phatgoose, a gate", got_BTO, opened(updates(library, "attn.q", 0)[1], library.scale[1], gate_I, x_BTI))


def test_gates_learn(trained):
    """They begin at 0, and AdamW moves each coordinate by the learning rate at most."""
    for gate_LEI in trained.gates.values():
        assert 0.01 < np.abs(gate_LEI).max() < FAST["steps"] * FAST["learning_rate"] * 1.01
        assert (np.abs(gate_LEI).max(axis=(0, 2)) > 0.01).all()


def test_a_gate_is_what_it_would_be_alone(trained, library, word_model, word_tasks):
    alone = phatgoose(library["sort"], word_model, word_tasks, **FAST)
    for site in SITES:
        np.testing.assert_allclose(alone.gates[site][:, 0], trained.gates[site][:, 1], atol=1e-4)


def test_gates_that_all_open_alike_count_alike(library, x_BTI):
    still = PhatGoose({"attn.q": jnp.ones((2, 3, 32))}, top_k=-1)
    one = jax.tree.map(lambda leaf: leaf[0], still)
    np.testing.assert_allclose(one("attn.q", x_BTI, Context()), 1 / 3, rtol=1e-6)


def test_what_cannot_be_is_named(library, word_model, word_tasks):
    with pytest.raises(InputError, match="top_k=0"):
        phatgoose(library, word_model, word_tasks, top_k=0)
    with pytest.raises(InputError, match="steps=0"):
        phatgoose(library, word_model, word_tasks, steps=0)
    with pytest.raises(InputError, match="expert 'count' was trained on count; found only copy, sort"):
        phatgoose(library, word_model, word_tasks.select(["copy", "sort"]))
