"""Tiny random checkpoints written by transformers, and tiny decoders."""

import jax
import jax.numpy as jnp
import pytest

from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="session")
def torch_model():
    """A function that gives a random float32 model of transformers."""
    return _torch_model


def _torch_model(family, seed=0, **overrides):
    """Norms and biases are random too, so that none can be forgotten."""
    import torch
    import transformers

    name = {"llama": "Llama", "mistral": "Mistral", "phi": "Phi"}[family]
    config = getattr(transformers, f"{name}Config")(**(SIZES | overrides), attn_implementation="eager")
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A saved tiny llama; tests that damage it work on a copy."""
    path = tmp_path_factory.mktemp("llama")
    _torch_model("llama").save_pretrained(path)
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
