"""GPT-2, GPT-Neo and GPT-NeoX (which Pythia is too)."""

import functools

from modjax.models.families.keys import QKV_AND_OUT, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation, alternating_windows
from modjax.models.hf_rope import rope

_GPT = {
    "norm_eps": ("number", "layer_norm_epsilon"),
    "tied": ("flag", "tie_word_embeddings"),
}
_GPT_FIXED = {"norm": "layer", "gated": False, "out_bias": True, "mlp_bias": True, "learned_positions": True}
_GPT_DEFAULTS = {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "tie_word_embeddings": True}
_ACTIVATION_FUNCTION = functools.partial(activation, key="activation_function")

GPT_NEOX = Family(
    sizes={letter: key for letter, key in SIZES.items() if letter not in "KH"},
    keys=QKV_AND_OUT
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
