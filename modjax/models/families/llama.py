"""LLaMA and the families that differ from it in single options."""

import dataclasses
import functools

from modjax.models.families.keys import QKV_AND_OUT, RMS, RMS_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation
from modjax.models.hf_rope import ONE_LENGTH, listed_rotary, position_scale, rope

LLAMA = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT | {"mlp_bias": ("flag", "mlp_bias")},
    fixed={},
    derived=(activation, rope),
    defaults=RMS_DEFAULTS | {"max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
    without_effect=("is_llama_config",),
)
MISTRAL = Family(
    sizes=SIZES,
    keys=RMS | {"window": ("size", "sliding_window")},
    fixed={},
    derived=(activation, rope),
    defaults=RMS_DEFAULTS
    | {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096, "layer_types": None},
    only={"layer_types": None, "attention_bias": False},
    nullable=("sliding_window", "num_key_value_heads"),
)
_SCALING_BY_POSITION = ("llama_4_scaling_beta", "max_position_embeddings")
MINISTRAL3 = dataclasses.replace(
    MISTRAL,
    derived=(
        activation,
        functools.partial(rope, also=_SCALING_BY_POSITION),
        position_scale,
    ),
    defaults=RMS_DEFAULTS
    | {
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "sliding_window": None,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1_000_000.0,
            "factor": 16.0,
            "original_max_position_embeddings": 16_384,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
)
SMOLLM3 = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT | {"mlp_bias": ("flag", "mlp_bias")},
    fixed={},
    derived=(activation, functools.partial(rope, kinds=ONE_LENGTH), listed_rotary),
    defaults=RMS_DEFAULTS
    | {
        "tie_word_embeddings": True,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "rope_theta": 2_000_000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "use_sliding_window": False,
        "sliding_window": None,
        "layer_types": None,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    },
    nullable=("sliding_window", "num_key_value_heads"),
    without_effect=("max_window_layers",),
)
GRANITE = Family(
    sizes=SIZES,
    keys=LLAMA.keys
    | {
        "embed_scale": ("number", "embedding_multiplier"),
        "attn_scale": ("number", "attention_multiplier"),
        "residual_scale": ("number", "residual_multiplier"),
    },
    fixed={},
    derived=(activation, rope, lambda values, sizes: {"logit_scale": 1 / values.number("logits_scaling")}),
    defaults=LLAMA.defaults
    | dict.fromkeys(("embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling"), 1.0),
)
