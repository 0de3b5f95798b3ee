"""OLMo, OLMo 2 and OLMo 3."""

import dataclasses
import functools

from modjax.models.families.keys import QKV_AND_OUT, RMS, RMS_DEFAULTS, ROPE_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation
from modjax.models.hf_rope import layer_ropes, rope

OLMO = Family(
    sizes=SIZES,
    keys=QKV_AND_OUT | {"tied": ("flag", "tie_word_embeddings"), "qkv_clip": ("number", "clip_qkv")},
    fixed={"norm": "layer_plain", "norm_eps": 1e-5},
    derived=(activation, rope),
    defaults=ROPE_DEFAULTS
    | {
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "max_position_embeddings": 2048,
        "attention_bias": False,
        "clip_qkv": None,
    },
    nullable=("clip_qkv",),
)
OLMO2 = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT,
    fixed={"pre_norm": False, "post_norm": True, "qk_norm": "full"},
    derived=(activation, rope),
    defaults=RMS_DEFAULTS | {"rms_norm_eps": 1e-5, "max_position_embeddings": 2048, "attention_bias": False},
)
OLMO3 = dataclasses.replace(
    OLMO2,
    derived=(
        activation,
        functools.partial(layer_ropes, slides=lambda values, i: (i + 1) % 4 != 0, local_theta="rope_theta"),
    ),
    defaults=OLMO2.defaults | {"rope_theta": 500_000.0, "sliding_window": 4096, "layer_types": None},
    only={"rope_theta": 500_000.0},  # transformers takes another one for some of the layers only
)
