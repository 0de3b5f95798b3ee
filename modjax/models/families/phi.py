"""Phi (1, 1.5 and 2) and Phi-3 (which Phi-3.5 and Phi-4 are too)."""

import functools

from modjax.models.families.keys import RMS, RMS_DEFAULTS, ROPE_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import activation
from modjax.models.hf_rope import rope

PHI = Family(
    sizes=SIZES,
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
    defaults=ROPE_DEFAULTS
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
    sizes=SIZES,
    keys=RMS | {"window": ("size", "sliding_window")},
    fixed={"fused_qkv": "stacked", "fused_mlp": True},
    derived=(
        activation,
        # Older files of this family say "su" or "yarn" for longrope.
        functools.partial(
            rope, whole=False, kinds={"default": "default", **dict.fromkeys(("longrope", "su", "yarn"), "longrope")}
        ),
    ),
    defaults=RMS_DEFAULTS
    | {
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "sliding_window": None,
    },
    only={"attention_bias": False, "mlp_bias": False},
    nullable=("sliding_window",),
)
