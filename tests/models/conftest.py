"""Tiny random checkpoints written by transformers, and tiny decoders."""

import jax
import jax.numpy as jnp
import pytest

from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, torch_model):
    """A saved tiny llama; tests that damage it work on a copy."""
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    return path


FAMILIES = {
    "llama": {"rope_theta": 500.0},
    "mistral": {"window": 3},
    "phi": {
        "norm": "layer",
        "parallel": True,
        "gated": False,
        "activation": "gelu_tanh",
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "head_bias": True,
        "rope_dim": 4,
    },
}


@pytest.fixture(params=FAMILIES)
def decoder(request):
    """A tiny random decoder of each family, its weights large enough for attention to matter."""
    fields = {"rope_dim": 8} | FAMILIES[request.param]
    config = ModelConfig(request.param, V=61, D=32, N=4, K=2, H=8, F=48, L=2, context=64, **fields)
    return jax.tree.map(lambda leaf: leaf * 10 if leaf.ndim > 1 else leaf, Decoder.init(config, jax.random.key(0)))


@pytest.fixture(scope="session")
def run():
    """decoder(tokens, positions, segments)[0], compiled once for each family and shape."""
    return jax.jit(lambda decoder, *places: decoder(*places)[0])


@pytest.fixture
def tokens_BT():
    return jax.random.randint(jax.random.key(1), (2, 12), 0, 61, jnp.int32)
