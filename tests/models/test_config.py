import warnings

import pytest

from modjax.errors import InputError
from modjax.models.config import FAMILIES, MULTIMODAL, ModelConfig
from modjax.ops.rope import Rope, Scaling

LLAMA = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
PHI = LLAMA | {"model_type": "phi"}
QWEN2 = LLAMA | {"model_type": "qwen2", "num_key_value_heads": 2}
LONG = {"short_factor": [1, 2, 3, 4], "long_factor": [5, 6, 7, 8], "rope_type": "longrope"}


def read(found):
    return ModelConfig.from_hf(found, "config.json")


# Sizes that every file has; 32 heads and 24 layers fit the defaults of other keys in every family.
SIZES = LLAMA | {"hidden_size": 256, "num_attention_heads": 32, "num_hidden_layers": 24}
BARE = {family: SIZES | {"model_type": family} for family in FAMILIES}
BARE["gpt2"] = {"model_type": "gpt2", "vocab_size": 61, "n_embd": 256, "n_head": 32, "n_layer": 24}
BARE["gpt_neo"] = {"model_type": "gpt_neo", "vocab_size": 61, "hidden_size": 256, "num_heads": 32, "num_layers": 24}


@pytest.mark.parametrize("family", FAMILIES)
def test_absent_keys_mean_what_they_mean_in_transformers(family):
    import transformers

    theirs = transformers.AutoConfig.for_model(**BARE[family]).to_dict()
    assert read(BARE[family]) == read(theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_key_that_transformers_writes_is_unknown(family):
    import transformers

    theirs = transformers.AutoConfig.for_model(**BARE[family]).to_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_keys_are_named(family):
    with pytest.warns(UserWarning, match=r"config.json: moe_layers, residual_gain: not known to modjax"):
        read(BARE[family] | {"residual_gain": 2.0, "moe_layers": [1]})


# Keys that published files have and that change nothing, beyond those that transformers writes.
HARMLESS = {
    "output_past": True,
    "_num_labels": 3,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "max_sequence_length": 4096,
    "custom_pipelines": {"text-generation": {"impl": "x.py"}},
    "unsloth_fixed": True,
    "model_name": "tiny",
    "hidden_dropout_prob": 0.1,
    "resid_pdrop": 0.1,
    "xla_device": True,
    "axolotl_version": "0.4",
    "num_beams": 1,
    "rope_interleaved": False,
    "quantization_config": None,
    "attn_logit_multiplier": None,
    "use_mrope": False,
    "expert_layers": [],
    "extra_tokens": 0,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_harmless_keys_need_no_warning(family):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(BARE[family] | HARMLESS) == read(BARE[family])


@pytest.mark.parametrize(
    ("found", "method"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"load_in_4bit": False, "load_in_8bit": True}}, "bitsandbytes"),
        *(
            ({"quantization_config": {"quant_method": name, "bits": 4}}, name)
            for name in ("gptq", "awq", "fp8", "compressed-tensors", "mxfp4")
        ),
        ({"quantization_config": {"bits": 4}}, "unknown method"),
        ({"compression_config": {"quant_method": "sparseml"}}, "sparseml"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx"),
    ],
)
def test_quantised_models_are_refused_by_the_name_of_their_method(found, method):
    (key,) = found
    says = rf"^config.json: the weights are quantised \({key}: {method}\), .* take the unquantised model\."
    with pytest.raises(InputError, match=says):
        read(LLAMA | found)
    with pytest.raises(InputError, match="take the unquantised model; the file names 'mistralai/Mistral-7B-v0.1'"):
        read(LLAMA | found | {"_name_or_path": "mistralai/Mistral-7B-v0.1"})


def test_unknown_keys_of_rope_parameters_are_named():
    with pytest.warns(UserWarning, match=r"config.json: rope_parameters: mrope_section: not known to modjax"):
        read(LLAMA | {"rope_parameters": {"rope_theta": 1e4, "mrope_section": [1, 1, 2]}})


def test_rope_theta_of_old_and_new_files():
    old = read(LLAMA | {"rope_theta": 5e5, "rope_scaling": None})
    new = read(LLAMA | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert old == new and old.rope_theta == 5e5


def test_rope_of_old_and_new_files_of_gpt_neox():
    neox = LLAMA | {"model_type": "gpt_neox", "hidden_size": 64}
    old = read(neox | {"rotary_emb_base": 500, "rotary_pct": 0.5})
    assert old == read(neox | {"rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 0.5}})
    assert (old.rope_theta, old.rope_dim) == (500, 8)


def test_partial_rotary():
    assert read(PHI | {"partial_rotary_factor": 0.25}).rope_dim == 2
    assert read(PHI | {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}}).rope_dim == 2
    assert read(PHI).rope_dim == 4


def test_rope_scaling_of_llama_3():
    scaling = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
    found = read(LLAMA | {"rope_theta": 5e5, "rope_scaling": scaling | {"original_max_position_embeddings": 8192}})
    assert found.rope_scaling == Scaling("llama3", 8.0, 8192, slow=1.0, fast=4.0)
    assert read(LLAMA | {"rope_scaling": scaling}).rope_scaling.original == 2048  # then max_position_embeddings


def test_older_names_of_phi3s_scaling():
    phi3 = LLAMA | {"model_type": "phi3", "max_position_embeddings": 8192}
    longrope = read(phi3 | {"rope_scaling": LONG}).rope_scaling
    assert longrope.short == (1, 2, 3, 4) and longrope.original == 4096
    assert longrope.magnitude == pytest.approx((1 + 1 / 12) ** 0.5)
    assert longrope == read(phi3 | {"rope_scaling": LONG | {"rope_type": None, "type": "su"}}).rope_scaling


def test_mistral_window_null_is_not_absent():
    mistral = LLAMA | {"model_type": "mistral", "num_key_value_heads": 2}
    assert read(mistral).window == 4096
    assert read(mistral | {"sliding_window": None}).window is None


@pytest.mark.parametrize(
    ("change", "window", "local"),
    [
        ({}, None, None),
        ({"sliding_window": 5, "max_window_layers": 1}, None, None),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}, 5, (False, True, True)),
        ({"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0}, 5, None),
        ({"use_sliding_window": True, "max_window_layers": 3}, None, None),
        ({"use_sliding_window": True, "layer_types": ["full_attention"] * 3}, None, None),
    ],
)
def test_layers_that_slide(change, window, local):
    config = read(QWEN2 | change)
    assert (config.window, config.local) == (window, local)


LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]
GEMMA3 = LLAMA | {"model_type": "gemma3_text", "head_dim": 8, "layer_types": LAYERS, "sliding_window": 5}


def test_rotary_embeddings_of_old_and_new_files_of_gemma_3():
    scaling = {"rope_type": "linear", "factor": 8}
    old = read(GEMMA3 | {"rope_theta": 5e5, "rope_local_base_freq": 50, "rope_scaling": scaling})
    scaled = {"rope_type": "linear", "rope_theta": 5e5, "factor": 8.0}
    new = {"full_attention": scaled, "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}
    assert old == read(GEMMA3 | {"rope_parameters": new})
    local = Rope(50.0)
    assert old.ropes == (local, Rope(5e5, Scaling("linear", 8.0)), local)


def test_where_no_layer_or_every_layer_slides_there_is_one_rotary_embedding():
    full, sliding = (read(GEMMA3 | {"layer_types": [kind] * 3}) for kind in ("full_attention", "sliding_attention"))
    assert (full.window, full.ropes) == (None, (Rope(1e6),) * 3)
    assert (sliding.window, sliding.local, sliding.ropes) == (5, None, (Rope(1e4),) * 3)
    assert full.local_rope is None and sliding.local_rope is None


def test_layers_without_rotary_embedding():
    smollm3 = LLAMA | {"model_type": "smollm3", "num_hidden_layers": 4, "rope_theta": 500.0}
    assert read(smollm3).ropes == (Rope(500.0), Rope(500.0), Rope(500.0), None)
    assert read(smollm3 | {"no_rope_layers": [0, 1, 1, 1, 1]}).ropes == (None, Rope(500.0), Rope(500.0), Rope(500.0))
    slides = read(smollm3 | {"no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 3})
    assert (slides.window, slides.local) == (3, (False, True, False, True))
    command = read(LLAMA | {"model_type": "cohere2", "layer_types": LAYERS})
    assert command.ropes == (Rope(1e4), None, Rope(1e4))


def test_queries_scaled_by_position():
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "llama_4_scaling_beta": 0.1}
    ministral3 = LLAMA | {"model_type": "ministral3", "num_key_value_heads": 2}
    assert read(ministral3).position_scale == (0.1, 16_384)
    assert read(ministral3 | {"rope_parameters": rope}).position_scale == (0.1, 16)
    assert read(ministral3 | {"rope_parameters": rope | {"llama_4_scaling_beta": 0.0}}).position_scale is None


def test_gelu_of_the_first_gemma_files_is_its_approximation():
    assert (
        read(LLAMA | {"model_type": "gemma", "num_key_value_heads": 2, "hidden_act": "gelu"}).activation == "gelu_tanh"
    )


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


def test_fused_sites():
    assert read(LLAMA | {"model_type": "phi3", "num_key_value_heads": 2}).sites == {
        "attn.qkv": (32, 64),
        "attn.o": (32, 32),
        "mlp.gate_up": (32, 96),
        "mlp.down": (48, 32),
    }
    assert list(read(BARE["gpt2"]).sites.items())[0] == ("attn.qkv", (256, 768))


def test_config_is_hashable():
    phi3 = LLAMA | {"model_type": "phi3", "rope_scaling": LONG}
    assert len({read(LLAMA), read(dict(LLAMA)), read(PHI), read(phi3), read(phi3)}) == 3


SUPPORTED = ", ".join([*FAMILIES, *MULTIMODAL])
NEO = BARE["gpt_neo"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mamba"}, f"model_type is 'mamba'; supported are {SUPPORTED}"),
        ({"model_type": None}, "model_type is None"),
        ({"model_type": ["llama"]}, "model_type is .'llama'.; supported are"),
        ({"hidden_size": None}, "hidden_size is None; expected a positive whole number"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
        ({"hidden_size": 30}, "hidden_size is 30; expected a multiple of num_attention_heads = 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_key_value_heads": 3}, "4 query heads; expected a multiple of the 3 key-value heads"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5'; expected a positive number"),
        ({"attention_bias": 1}, "attention_bias is 1; expected true or false"),
        ({"hidden_act": "gelu_10"}, "hidden_act is 'gelu_10'; supported are silu"),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope scaling 'dynamic' .*; expected one of default",
        ),
        ({"rope_scaling": {"type": "linear"}}, "rope_parameters: factor is None; expected a positive number"),
        ({"rope_scaling": "linear"}, "rope_scaling is 'linear'; expected an object"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_parameters: rope_theta is 0; expected a positive number"),
        ({"rope_parameters": {"rope_theta": 1}}, "rope_parameters: rope_theta is 1; expected a number above 1"),
        ({"rope_scaling": {"type": ["yarn"]}}, r"rope scaling \['yarn'\] is not supported"),
        ({"rope_scaling": LONG | {"original_max_position_embeddings": 1}}, "expected more than 1 token"),
        ({"rope_parameters": {"full_attention": {}}}, "full_attention: only one rotary embedding for all layers"),
        ({"rope_scaling": LONG | {"short_factor": [1, 2]}}, "short_factor is .1, 2.; expected a list of 4 positive"),
        ({"rope_scaling": LONG | {"short_factor": [1, 2, 3, 0]}}, "short_factor: 3 is 0; expected a positive number"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5 is not supported; expected 1.0"),
        (
            {"model_type": "phi", "partial_rotary_factor": 0.4},
            "3 rotary dimensions per head; expected an even",
        ),
        ({"model_type": "phi3", "rope_scaling": {"type": "linear"}}, "rope scaling 'linear' is not supported"),
        ({"model_type": "gpt_neox", "rope_theta": 5e5}, "rope_theta = 500000.0 is not supported; expected 10000.0"),
        (
            {"model_type": "mistral", "layer_types": ["full_attention"]},
            "layer_types = .*; expected None",
        ),
        (QWEN2 | {"layer_types": ["full_attention"]}, "layer_types is .*; expected a list of 3 types"),
        (
            QWEN2 | {"layer_types": ["mamba"] * 3},
            "layer_types is .*; expected only 'full_attention' and 'sliding_attention'",
        ),
        (
            QWEN2 | {"layer_types": ["sliding_attention"] * 3},
            "sliding_window is 4096; expected a width",
        ),
        (NEO | {"attention_types": [["global", 24]]}, "attention_types is .*; expected 'global' or 'local' for each"),
        (NEO | {"attention_types": 7}, "attention_types is 7"),
        (NEO | {"attention_layers": ["local"] * 24}, "attention_layers = .* is not supported"),
        (BARE["gemma2"] | {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
        ({"lm_head_bias": True}, "lm_head_bias = True is not supported; expected False"),
        ({"quantization_config": "nf4"}, "quantization_config is 'nf4'; expected an object"),
        (
            GEMMA3 | {"rope_parameters": {"rope_theta": 1e4}},
            "rope_parameters is .*; expected an object with",
        ),
        (GEMMA3 | {"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, "'longrope' is not supported"),
        (GEMMA3 | {"rope_scaling": {"type": "linear", "factor": 8}}, "rope_scaling is .*; expected the key rope_type"),
        (GEMMA3 | {"sliding_window_pattern": 0, "layer_types": None}, "sliding_window_pattern is 0"),
        (
            LLAMA | {"model_type": "smollm3", "no_rope_layers": [1, 0]},
            "no_rope_layers is .1, 0.; expected a list of 0",
        ),
        (LLAMA | {"model_type": "smollm3", "no_rope_layers": [1, 0, 2]}, "no_rope_layers is .1, 0, 2."),
        (
            LLAMA | {"model_type": "olmo3", "rope_theta": 1e4},
            "rope_theta = 10000.0 is not supported; expected 500000.0",
        ),
        (
            LLAMA | {"model_type": "ministral3", "rope_parameters": {"rope_theta": 1e4}},
            "rope_parameters: llama_4_scaling_beta is None; expected a positive number",
        ),
        (LLAMA | {"model_type": "stablelm", "qk_layernorm": True}, "qk_layernorm = True is not supported"),
        (BARE["gpt2"] | {"add_cross_attention": True}, "add_cross_attention = True"),
    ],
)
def test_errors_name_file_and_key(change, says):
    with pytest.raises(InputError, match=says) as caught:
        read((LLAMA if "vocab_size" not in change else {}) | change)
    assert str(caught.value).startswith("config.json: ")


@pytest.mark.parametrize(
    ("rope", "reach"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, 128),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),
        ({"rope_type": "yarn", "original_max_position_embeddings": 16}, 64),
        ({"rope_type": "linear", "factor": 4.0}, 64),
    ],
)
def test_yarn_reaches_beyond_the_context_that_a_file_names(rope, reach):
    config = read(LLAMA | {"max_position_embeddings": 64, "rope_parameters": rope | {"rope_theta": 1e4}})
    assert (config.context, config.reach) == (64, reach)
