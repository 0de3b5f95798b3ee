"""Command R (cohere) and Command R7B (cohere2)."""

import dataclasses
import functools

from modjax.models.families.keys import QKV_AND_OUT, ROPE_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation
from modjax.models.hf_rope import ONE_LENGTH, local_rotary, rope

COHERE = Family(
    sizes=SIZES,
    keys=QKV_AND_OUT
    | {
        "norm_eps": ("number", "layer_norm_eps"),
        "tied": ("flag", "tie_word_embeddings"),
        "logit_scale": ("number", "logit_scale"),
    },
    fixed={"norm": "layer_scale", "parallel": True, "rope_adjacent": True},
    derived=(
        activation,
        rope,
        lambda values, sizes: {"qk_norm": "each_head" if values.flag("use_qk_norm") else None},
    ),
    defaults=ROPE_DEFAULTS
    | {
        "layer_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
        "rope_theta": 500_000.0,
        "attention_bias": False,
        "logit_scale": 0.0625,
        "use_qk_norm": False,
    },
    without_effect=("model_max_length",),
)
COHERE2 = dataclasses.replace(
    COHERE,
    derived=(
        activation,
        functools.partial(rope, kinds=ONE_LENGTH),
        functools.partial(local_rotary, slides=lambda values, i: (i + 1) % values.size("sliding_window_pattern") != 0),
    ),
    defaults=COHERE.defaults
    | {"rope_theta": 10_000.0, "sliding_window": 4096, "sliding_window_pattern": 4, "layer_types": None},
    only={
        "position_embedding_type": "rope_gptj",
        "rotary_pct": 1.0,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_qk_norm": False,
    },
    without_effect=("layer_switch", "order_of_interleaved_layers", "use_embedding_sharing", "use_parallel_embedding"),
)
