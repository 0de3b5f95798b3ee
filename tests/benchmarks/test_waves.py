"""The benchmark of waves on a tiny model. No timing is asserted."""

import dataclasses

import jax.numpy as jnp
import waves

import modjax
from modjax.models import gguf, gguf_tokenizer


def test_waves_and_all_at_once_train_the_same(tiny_folder):
    model = modjax.load(tiny_folder, dtype=jnp.float32)
    model = dataclasses.replace(model, tokenizer=gguf_tokenizer.read(gguf.embedded()))
    found = waves.compared(model, modjax.data.load("open48").training, waves.arguments(["--small"]))
    assert found["largest_difference"] < 1e-6
    assert found["seconds_between_two_waves"] > 0
