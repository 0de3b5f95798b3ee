import pytest

from modjax.errors import InputError
from modjax.models.config import FAMILIES, ModelConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
PHI = LLAMA | {"model_type": "phi"}


def read(found):
    return ModelConfig.from_hf(found, "config.json")


@pytest.mark.parametrize("family", FAMILIES)
def test_absent_keys_mean_what_they_mean_in_transformers(family):
    import transformers

    ours = read(LLAMA | {"model_type": family})
    theirs = transformers.AutoConfig.for_model(**(LLAMA | {"model_type": family, "num_key_value_heads": 4})).to_dict()
    assert ours == read(theirs)


def test_rope_theta_of_old_and_new_files():
    old = read(LLAMA | {"rope_theta": 5e5, "rope_scaling": None})
    new = read(LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert old == new and old.rope_theta == 5e5


def test_partial_rotary():
    assert read(PHI | {"partial_rotary_factor": 0.25}).rope_dim == 2
    assert read(PHI | {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}).rope_dim == 2
    assert read(PHI).rope_dim == 4


def test_mistral_window_null_is_not_absent():
    mistral = LLAMA | {"model_type": "mistral"}
    assert read(mistral).window == 4096
    assert read(mistral | {"sliding_window": None}).window is None


def test_sites():
    assert read(LLAMA | {"num_key_value_heads": 2}).sites == {
        "attn.q": (32, 32),
        "attn.k": (32, 16),
        "attn.v": (32, 16),
        "attn.o": (32, 32),
        "mlp.gate": (32, 48),
        "mlp.up": (32, 48),
        "mlp.down": (48, 32),
    }
    assert list(read(PHI).sites) == ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.fc1", "mlp.fc2"]


def test_config_is_hashable():
    assert len({read(LLAMA), read(dict(LLAMA)), read(PHI)}) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'; supported are llama, mistral, phi"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_size": None}, "hidden_size is None; expected a positive whole number"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3 key-value heads"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope scaling 'linear'"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope scaling 'llama3'"),
        ({"hidden_act": "tanhshrink"}, "hidden_act is 'tanhshrink'; supported are silu"),
        ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm = True is not supported"),
        ({"model_type": "phi", "partial_rotary_factor": 0.4}, "3 of 8 coordinates of a head are rotary"),
    ],
)
def test_errors_name_file_and_key(change, says):
    with pytest.raises(InputError, match=says) as caught:
        read(LLAMA | change)
    assert str(caught.value).startswith("config.json: ")
