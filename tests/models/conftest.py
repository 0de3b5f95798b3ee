"""Tiny random checkpoints written by transformers, and tiny decoders."""

import jax
import jax.numpy as jnp
import pytest

from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.rope import Rope, Scaling


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, torch_model):
    """A saved tiny llama; tests that damage it work on a copy."""
    path = tmp_path_factory.mktemp("llama")
    torch_model("llama").save_pretrained(path)
    return path


# Together they cover everything in which families differ.
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
        "qk_norm": "head",
    },
    "phi3": {
        "fused_qkv": "stacked",
        "fused_mlp": True,
        "rope_scaling": Scaling("longrope", original=5, magnitude=1.2, short=(1, 1.5, 2, 1), long=(2, 3, 5, 8)),
    },
    "gpt_neox": {
        "K": 4,
        "norm": "layer",
        "parallel": True,
        "two_norms": True,
        "gated": False,
        "fused_qkv": "interleaved",
        "rope_dim": 2,
    },
    "gpt2": {
        "norm": "layer",
        "gated": False,
        "fused_qkv": "stacked",
        "learned_positions": True,
        "rope_dim": 0,
        "inverse_layer_scale": True,
        "tied": True,
        "head_bias": True,
    },
    "gemma2": {
        "norm": "rms_offset",
        "post_norm": True,
        "qk_norm": "full",
        "window": 3,
        "local": (True, False),
        "embed_scale": 2.0,
        "attn_scale": 0.5,
        "attn_softcap": 2.0,
        "logit_softcap": 3.0,
    },
    "olmo3": {
        "norm": "layer_plain",
        "window": 3,
        "local": (True, False),
        "local_rope": Rope(50.0),
        "rotary": (True, False),
        "position_scale": (0.5, 4),
        "qkv_clip": 3.0,
        "residual_scale": 0.7,
    },
    "cohere": {
        "norm": "layer_scale",
        "parallel": True,
        "rope_adjacent": True,
        "qk_norm": "each_head",
        "logit_scale": 0.5,
    },
}


@pytest.fixture(params=FAMILIES)
def decoder(request):
    """A tiny random decoder of each family, its weights large enough for attention to matter."""
    sizes = {"V": 61, "D": 32, "N": 4, "K": 2, "H": 8, "F": 48, "L": 2, "context": 64, "rope_dim": 8}
    config = ModelConfig(request.param, **(sizes | FAMILIES[request.param]))
    return jax.tree.map(lambda leaf: leaf * 7 if leaf.ndim > 1 else leaf, Decoder.init(config, jax.random.key(0)))


@pytest.fixture(scope="session")
def run():
    """decoder(tokens, positions, ends), compiled once for each family and shape."""
    return jax.jit(lambda decoder, *places: decoder(*places))


@pytest.fixture(scope="session")
def run_cached():
    """Decoder.prefill(tokens, positions, ends, room) and Decoder.decode(tokens, cache), compiled likewise."""
    return jax.jit(Decoder.prefill, static_argnums=4), jax.jit(Decoder.decode)


@pytest.fixture
def tokens_BT():
    return jax.random.randint(jax.random.key(1), (2, 12), 0, 61, jnp.int32)
