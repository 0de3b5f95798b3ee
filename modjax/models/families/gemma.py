"""Gemma, Gemma 2 and the text decoder of Gemma 3."""

import functools

from modjax.models.families.keys import QKV_AND_OUT, RMS, RMS_DEFAULTS, SIZES
from modjax.models.family import Family
from modjax.models.hf_config import ACTIVATIONS, Sizes, activation, layer_windows
from modjax.models.hf_rope import layer_ropes, rope
from modjax.models.values import Values


def _embed_scale(values: Values, sizes: Sizes) -> dict[str, float]:
    return {"embed_scale": sizes["D"] ** 0.5}


def _attn_scale(values: Values, sizes: Sizes) -> dict[str, float]:
    return {"attn_scale": values.number("query_pre_attn_scalar") ** -0.5}


_GEMMA_DEFAULTS = RMS_DEFAULTS | {
    "tie_word_embeddings": True,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "attention_bias": False,
}

GEMMA = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT,
    fixed={"norm": "rms_offset"},
    # The first files say "gelu" where the weights were trained with its approximation.
    derived=(functools.partial(activation, names=ACTIVATIONS | {"gelu": "gelu_tanh"}), rope, _embed_scale),
    defaults=_GEMMA_DEFAULTS | {"hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 16},
    only={"use_bidirectional_attention": False, "hidden_activation": "gelu_pytorch_tanh"},
)
GEMMA2 = Family(
    sizes=SIZES,
    keys=RMS
    | QKV_AND_OUT
    | {
        "attn_softcap": ("number", "attn_logit_softcapping"),
        "logit_softcap": ("number", "final_logit_softcapping"),
    },
    fixed={"norm": "rms_offset", "post_norm": True},
    derived=(
        functools.partial(activation, key="hidden_activation"),
        rope,
        functools.partial(layer_windows, slides=lambda values, i: i % 2 == 0),
        _embed_scale,
        _attn_scale,
    ),
    defaults=_GEMMA_DEFAULTS
    | {
        "hidden_activation": "gelu_pytorch_tanh",
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "layer_types": None,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    only={"use_bidirectional_attention": False},
    nullable=("attn_logit_softcapping", "final_logit_softcapping", "sliding_window"),
)
GEMMA3_TEXT = Family(
    sizes=SIZES,
    keys=RMS | QKV_AND_OUT | {"logit_softcap": ("number", "final_logit_softcapping")},
    fixed=GEMMA2.fixed | {"qk_norm": "head"},
    derived=(
        functools.partial(activation, key="hidden_activation"),
        functools.partial(
            layer_ropes,
            slides=lambda values, i: (i + 1) % values.size("sliding_window_pattern") != 0,
            local_theta="rope_local_base_freq",
        ),
        _embed_scale,
        _attn_scale,
    ),
    defaults=_GEMMA_DEFAULTS
    | {
        # The files of multimodal models leave out sizes that are the default ones.
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "layer_types": None,
        "final_logit_softcapping": None,
    },
    only={"use_bidirectional_attention": False, "attn_logit_softcapping": None},
    nullable=("final_logit_softcapping",),
    without_effect=("_sliding_window_pattern",),
)
