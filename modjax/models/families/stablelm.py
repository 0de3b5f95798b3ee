"""StableLM and StarCoder2: like LLaMA and Mistral, but with layer norms."""

import functools

from modjax.models.families.keys import ROPE_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation
from modjax.models.hf_rope import rope

STABLELM = Family(
    sizes={letter: key for letter, key in SIZES.items() if letter != "H"},
    keys={
        "norm_eps": ("number", "layer_norm_eps"),
        "tied": ("flag", "tie_word_embeddings"),
        "qkv_bias": ("flag", "use_qkv_bias"),
        "parallel": ("flag", "use_parallel_residual"),
    },
    fixed={"norm": "layer"},
    derived=(activation, functools.partial(rope, whole=False)),
    defaults=ROPE_DEFAULTS
    | {
        "layer_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "partial_rotary_factor": 0.25,
        "use_qkv_bias": False,
        "use_parallel_residual": False,
    },
    only={"qk_layernorm": False},
)
STARCODER2 = Family(
    sizes=SIZES,
    keys={
        "norm_eps": ("number", "norm_epsilon"),
        "tied": ("flag", "tie_word_embeddings"),
        "window": ("size", "sliding_window"),
    }
    | {field: ("flag", "use_bias") for field in ("qkv_bias", "out_bias", "mlp_bias")},
    fixed={"norm": "layer", "gated": False},
    derived=(activation, rope),
    defaults=ROPE_DEFAULTS
    | {
        "norm_epsilon": 1e-5,
        "hidden_act": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "sliding_window": None,
        "use_bias": True,
    },
    only={"mlp_type": "default", "norm_type": "layer_norm"},
    nullable=("sliding_window",),
    without_effect=(
        "activation_function",
        "attention_softmax_in_fp32",
        "embedding_dropout",
        "layer_norm_epsilon",
        "residual_dropout",
        "scale_attention_softmax_in_fp32",
        "scale_attn_weights",
    ),
)
