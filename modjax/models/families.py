"""The supported model families: one Family for each model_type of a config.json."""

from __future__ import annotations

import functools

from modjax.models.family import Family
from modjax.models.hf_config import activation, alternating_windows, layer_windows, rope

_SIZES = {
    "V": "vocab_size",
    "D": "hidden_size",
    "N": "num_attention_heads",
    "F": "intermediate_size",
    "L": "num_hidden_layers",
    "context": "max_position_embeddings",
    "K": "num_key_value_heads",
    "H": "head_dim",
}
_RMS = {"norm_eps": ("number", "rms_norm_eps"), "tied": ("flag", "tie_word_embeddings")}
_QKV_AND_OUT = {"qkv_bias": ("flag", "attention_bias"), "out_bias": ("flag", "attention_bias")}
_ROPE_DEFAULTS = {
    "rope_theta": 10_000.0,
    "partial_rotary_factor": 1.0,
    "rope_scaling": None,
    "rope_parameters": None,
    "original_max_position_embeddings": None,
}
_RMS_DEFAULTS = _ROPE_DEFAULTS | {"rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False}
_QWEN_DEFAULTS = _RMS_DEFAULTS | {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
_UPPER_LAYERS_SLIDE = functools.partial(layer_windows, slides=lambda values, i: i >= values.count("max_window_layers"))
_GPT = {
    "norm_eps": ("number", "layer_norm_epsilon"),
    "tied": ("flag", "tie_word_embeddings"),
}
_GPT_FIXED = {"norm": "layer", "gated": False, "out_bias": True, "mlp_bias": True, "learned_positions": True}
_GPT_DEFAULTS = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": True}
_ACTIVATION_FUNCTION = functools.partial(activation, key="activation_function")

LLAMA = Family(
    sizes=_SIZES,
    keys=_RMS | _QKV_AND_OUT | {"mlp_bias": ("flag", "mlp_bias")},
    fixed={},
    derived=(activation, rope),
    defaults=_RMS_DEFAULTS | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
    without_effect=("is_llama_config",),
)
MISTRAL = Family(
    sizes=_SIZES,
    keys=_RMS | {"window": ("size", "sliding_window")},
    fixed={},
    derived=(activation, rope),
    defaults=_RMS_DEFAULTS
    | {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096, "layer_types": None},
    only={"layer_types": None, "attention_bias": False},
    nullable=("sliding_window", "num_key_value_heads"),
)
PHI = Family(
    sizes=_SIZES,
    keys={"norm_eps": ("number", "layer_norm_eps"), "tied": ("flag", "tie_word_embeddings")},
    fixed={
        "norm": "layer",
        "parallel": True,
        "gated": False,
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "head_bias": True,
    },
    derived=(
        activation,
        functools.partial(rope, whole=False),
        lambda values, sizes: {"qk_norm": "head" if values.flag("qk_layernorm") else None},
    ),
    defaults=_ROPE_DEFAULTS
    | {
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu_new",
        "tie_word_embeddings": False,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 2048,
        "qk_layernorm": False,
    },
)
PHI3 = Family(
    sizes=_SIZES,
    keys=_RMS | {"window": ("size", "sliding_window")},
    fixed={"fused_qkv": "stacked", "fused_mlp": True},
    derived=(
        activation,
        # Older files of this family say "su" or "yarn" for longrope.
        functools.partial(
            rope, whole=False, kinds={"default": "default", **dict.fromkeys(("longrope", "su", "yarn"), "longrope")}
        ),
    ),
    defaults=_RMS_DEFAULTS
    | {
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "sliding_window": None,
    },
    only={"attention_bias": False, "mlp_bias": False},
    nullable=("sliding_window",),
)
QWEN2 = Family(
    sizes=_SIZES,
    keys=_RMS,
    fixed={"qkv_bias": True},
    derived=(activation, rope, _UPPER_LAYERS_SLIDE),
    defaults=_QWEN_DEFAULTS,
    nullable=("sliding_window", "num_key_value_heads"),
)
QWEN3 = Family(
    sizes=_SIZES,
    keys=_RMS | _QKV_AND_OUT,
    fixed={"qk_norm": "head"},
    derived=(activation, rope, _UPPER_LAYERS_SLIDE),
    defaults=_QWEN_DEFAULTS | {"head_dim": 128, "attention_bias": False},
    nullable=("sliding_window", "num_key_value_heads"),
)
GPT_NEOX = Family(
    sizes={letter: key for letter, key in _SIZES.items() if letter not in "KH"},
    keys=_QKV_AND_OUT
    | {
        "norm_eps": ("number", "layer_norm_eps"),
        "tied": ("flag", "tie_word_embeddings"),
        "parallel": ("flag", "use_parallel_residual"),
    },
    fixed={"norm": "layer", "gated": False, "mlp_bias": True, "fused_qkv": "interleaved", "two_norms": True},
    derived=(activation, functools.partial(rope, theta="rotary_emb_base", share="rotary_pct", whole=False)),
    defaults={
        "layer_norm_eps": 1e-5,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "attention_bias": True,
        "max_position_embeddings": 2048,
        "rotary_emb_base": 10_000.0,
        "rotary_pct": 0.25,
        "rope_scaling": None,
        "rope_parameters": None,
        "original_max_position_embeddings": None,
    },
    without_effect=("rope_theta", "partial_rotary_factor", "num_key_value_heads"),
)
GPT_NEO = Family(
    sizes={
        "V": "vocab_size",
        "D": "hidden_size",
        "N": "num_heads",
        "F": "intermediate_size",
        "L": "num_layers",
        "context": "max_position_embeddings",
    },
    keys=_GPT,
    fixed=_GPT_FIXED | {"attn_scale": 1.0},
    derived=(_ACTIVATION_FUNCTION, alternating_windows),
    defaults=_GPT_DEFAULTS
    | {
        "intermediate_size": None,
        "max_position_embeddings": 2048,
        "window_size": 256,
        "attention_types": [[["global", "local"], 12]],
    },
    nullable=("intermediate_size",),
    without_effect=("attention_layers",),
)
GPT2 = Family(
    sizes={"V": "vocab_size", "D": "n_embd", "N": "n_head", "F": "n_inner", "L": "n_layer", "context": "n_positions"},
    keys=_GPT | {"inverse_layer_scale": ("flag", "scale_attn_by_inverse_layer_idx")},
    fixed=_GPT_FIXED | {"qkv_bias": True, "fused_qkv": "stacked"},
    derived=(
        _ACTIVATION_FUNCTION,
        lambda values, sizes: {"attn_scale": None if values.flag("scale_attn_weights") else 1.0},
    ),
    defaults=_GPT_DEFAULTS
    | {"n_inner": None, "n_positions": 1024, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    nullable=("n_inner",),
    without_effect=("n_ctx", "reorder_and_upcast_attn"),
)
OLMO2 = Family(
    sizes=_SIZES,
    keys=_RMS | _QKV_AND_OUT,
    fixed={"pre_norm": False, "post_norm": True, "qk_norm": "full"},
    derived=(activation, rope),
    defaults=_RMS_DEFAULTS | {"rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "attention_bias": False},
)
GEMMA2 = Family(
    sizes=_SIZES,
    keys=_RMS
    | _QKV_AND_OUT
    | {
        "attn_softcap": ("number", "attn_logit_softcapping"),
        "logit_softcap": ("number", "final_logit_softcapping"),
    },
    fixed={"norm": "rms_offset", "post_norm": True},
    derived=(
        functools.partial(activation, key="hidden_activation"),
        rope,
        functools.partial(layer_windows, slides=lambda values, i: i % 2 == 0),
        lambda values, sizes: {
            "embed_scale": sizes["D"] ** 0.5,
            "attn_scale": values.number("query_pre_attn_scalar") ** -0.5,
        },
    ),
    defaults=_RMS_DEFAULTS
    | {
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "attention_bias": False,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "layer_types": None,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    only={"use_bidirectional_attention": False},
    nullable=("attn_logit_softcapping", "final_logit_softcapping", "sliding_window"),
)

FAMILIES = {
    "llama": LLAMA,
    "mistral": MISTRAL,
    "phi": PHI,
    "phi3": PHI3,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gpt_neox": GPT_NEOX,
    "gpt_neo": GPT_NEO,
    "gpt2": GPT2,
    "olmo2": OLMO2,
    "gemma2": GEMMA2,
}
