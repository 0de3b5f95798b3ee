"""The rows that are held at a time: chosen by what one row needs and by the memory there is, once per workdir."""

import json

import jax
import jax.numpy as jnp
import pytest

from modjax.data.rows import Rows
from modjax.errors import InputError
from modjax.train import memory
from modjax.train.lora import LoRATraining
from modjax.train.settings import Settings
from modjax.train.step import member_sums

E, B, T, M = 4, 6, 16, 8


@pytest.fixture
def held(word_model):
    """held(function, ...): a function of this module, called with a run of the tiny model."""

    def call(function, *rest, **given):
        settings = Settings(length=T, batch=B, rank=2, **given)
        recipe = LoRATraining(word_model.config, settings, E)
        trained = jax.eval_shape(lambda: recipe.start(jax.random.key(0), None, E))
        ints, floats = (jnp.zeros((E, B, T), dtype) for dtype in (jnp.int32, jnp.float32))
        batch = Rows(ints, ints, ints, ints[..., :M], ints[..., :M], floats[..., :M], ints[..., :1])
        return function(word_model.params, recipe, trained, recipe.frozen, batch, *rest, settings)

    return call


@pytest.fixture
def choice(held, monkeypatch):
    """choice(rows): of a machine with memory for some rows, as a share of it is used."""
    one, two = (held(memory.held_bytes, rows) for rows in (1, 2))

    def choose(rows):
        monkeypatch.setattr(memory, "free_bytes", lambda device: int(rows * (two - one) / memory.SHARE))
        return held(memory.choice)

    return choose


def test_all_rows_that_fit_are_held(choice):
    assert choice(7.5) == {"micro": 7, "remat": False}
    assert choice(1000) == {"micro": E * B, "remat": False}


def test_blocks_are_recomputed_only_if_one_row_does_not_fit(choice):
    assert choice(1.01) == {"micro": 1, "remat": False}
    assert choice(0.9)["remat"]


def test_a_cpu_holds_no_more_than_makes_it_faster(choice, monkeypatch):
    monkeypatch.setattr(memory, "CPU_TOKENS", 3 * T + 1)
    assert choice(1000)["micro"] == 3


def test_nothing_is_held_twice(held, word_model):
    """Of each layer its input, q, k, v, the output of attention before and after attn.o, gate and up, and of each site
    with a LoRA a mask and the R numbers between its factors; of the rest of the decoder no more than of one layer."""
    config, rank, sites = word_model.config, 2, 4
    floats = 2 * config.D + 2 * config.N * config.H + 2 * config.K * config.H + 2 * config.F + sites * rank
    layer = T * (4 * (floats + config.N) + config.D + config.N * config.H)
    found = held(memory.held_bytes, 2) - held(memory.held_bytes, 1)
    assert found < (config.L + 1) * layer


def test_the_backward_pass_repeats_no_product_and_no_draw(held, monkeypatch):
    """What it computes once more are elementwise operations: as many of the others as where all is held."""

    def costly(decoder, recipe, trained, frozen, batch, settings):
        def loss(trained, keys):
            return member_sums(decoder, trained, frozen, batch, keys, recipe=recipe, settings=settings).sum()

        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (E, B)))
        text = str(jax.make_jaxpr(jax.grad(loss))(trained, keys))
        return [text.count(f" {name}") for name in ("dot_general", "random_bits", "custom_vmap_call")]

    found = held(costly)
    assert min(found) > 0
    monkeypatch.setattr("modjax.models.decoder.keeping", lambda layer, remat: layer)
    assert found == held(costly)


def test_with_remat_little_more_than_the_inputs_of_blocks_is_held(held, word_model):
    whole, recomputed = (
        held(memory.held_bytes, 2, remat=remat) - held(memory.held_bytes, 1, remat=remat) for remat in (False, True)
    )
    inputs = word_model.config.L * T * word_model.config.D * 4
    assert inputs < recomputed < 0.75 * whole


def test_a_workdir_keeps_the_choice(tmp_path):
    first = memory.settled(Settings(), tmp_path, lambda: {"micro": 3, "remat": True})
    again = memory.settled(Settings(), tmp_path, lambda: {"micro": 5, "remat": False})
    assert first == again == Settings(micro=3, remat=True)
    assert memory.settled(Settings(micro=2), tmp_path, None) == Settings(micro=2)
    (tmp_path / memory.CHOICE).write_text(json.dumps({"micro": -1, "remat": True}))
    with pytest.raises(InputError, match="micro=-1"):
        memory.settled(Settings(), tmp_path, None)


def test_there_is_free_memory():
    assert 2**20 < memory.free_bytes(jax.local_devices()[0]) <= memory.available()
