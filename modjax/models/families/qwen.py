"""Qwen2 (which Qwen2.5 is too) and Qwen3."""

import functools

from modjax.models.families.keys import QKV_AND_OUT, RMS, RMS_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation, layer_windows
from modjax.models.hf_rope import rope

_DEFAULTS = RMS_DEFAULTS | {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "layer_types": None,
}
_UPPER_LAYERS_SLIDE = functools.partial(layer_windows, slides=lambda values, i: i >= values.count("max_window_layers"))

QWEN2 = Family(
    sizes=SIZES,
    keys=RMS,
    fixed={"qkv_bias": True},
    derived=(activation, rope, _UPPER_LAYERS_SLIDE),
    defaults=_DEFAULTS,
    nullable=("sliding_window", "num_key_value_heads"),
)
QWEN3 = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT,
    fixed={"qk_norm": "head"},
    derived=(activation, rope, _UPPER_LAYERS_SLIDE),
    defaults=_DEFAULTS | {"head_dim": 128, "attention_bias": False},
    nullable=("sliding_window", "num_key_value_heads"),
)
