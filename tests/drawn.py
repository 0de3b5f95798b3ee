"""Random config.json files: one function for each family, which draws the keys of one tiny model."""

import zlib

import numpy as np
import pytest

from modjax.models.families import FAMILIES
from modjax.models.hf_names import MODULES

HEADS = [(4, 2), (4, 4), (4, 1), (8, 2), (2, 2), (2, 1)]
ACTIVATIONS = ["silu", "gelu", "gelu_new", "relu", "gelu_pytorch_tanh", "quick_gelu", "relu2", "tanh"]
ROPE = ["default", "linear", "llama3", "yarn", "longrope", "default"]
YES_AND_NO = [True, False]


class Deck:
    """Random choices that use each option once before any is repeated."""

    def __init__(self, rng):
        self.rng, self.left = rng, {}

    def __call__(self, name, options):
        left = self.left.setdefault((name, len(options)), [])
        if not left:
            left.extend(self.rng.permutation(len(options)))
        return options[left.pop()]


def rope(deck, kind, dim, share=None):
    factors = deck.rng.uniform(1, 6, (2, dim // 2)).round(3).tolist()
    parameters = {
        "default": {},
        "linear": {"factor": 2.5},
        "llama3": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": deck("llama3", [16, 40]),
        },
        "yarn": {"factor": 4.0, "original_max_position_embeddings": 16}
        | deck("yarn", [{}, {"beta_fast": 4.0, "truncate": False}, {"mscale": 0.7, "mscale_all_dim": 0.3}]),
        "longrope": {
            "short_factor": factors[0],
            "long_factor": factors[1],
            "original_max_position_embeddings": deck("longrope", [8, 32]),
        }
        | deck("factor", [{}, {"factor": 3.0}, {"attention_factor": 1.3}]),
    }[kind]
    parameters |= {"rope_type": kind, "rope_theta": deck("theta", [1e4, 300.0, 5e5])}
    return parameters | ({} if share is None else {"partial_rotary_factor": share})


def rms(deck, heads=HEADS):
    """Config keys that the families after llama share."""
    queries, keys = deck("heads", heads)
    return {
        "num_attention_heads": queries,
        "num_key_value_heads": keys,
        "num_hidden_layers": deck("layers", [2, 3]),
        "intermediate_size": deck("width", [40, 48]),
        "hidden_act": deck("activation", ACTIVATIONS),
        "tie_word_embeddings": deck("tied", YES_AND_NO),
        "rms_norm_eps": deck("eps", [1e-6, 1e-5, 1e-2]),
    }


def whole_rope(deck, drawn):
    dim = drawn.get("head_dim") or 32 // drawn["num_attention_heads"]
    return {"rope_parameters": rope(deck, deck("rope", ROPE), dim)}


def head_dim(deck):
    return {"head_dim": deck("head_dim", [None, 8, 12, 16])}


def layer_types(deck, drawn):
    sliding = {"use_sliding_window": True, "sliding_window": deck("window", [3, 6])}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"][-drawn["num_hidden_layers"] :]
    return deck(
        "types",
        [{}, sliding | {"max_window_layers": 1}, sliding | {"layer_types": kinds}, sliding | {"max_window_layers": 0}],
    )


def llama(deck):
    drawn = rms(deck) | head_dim(deck)
    drawn |= {"attention_bias": deck("bias", YES_AND_NO), "mlp_bias": deck("mlp_bias", YES_AND_NO)}
    return drawn | whole_rope(deck, drawn)


def mistral(deck):
    drawn = rms(deck) | head_dim(deck) | {"sliding_window": deck("window", [None, 3, 6, 100])}
    return drawn | whole_rope(deck, drawn)


def qwen2(deck):
    drawn = rms(deck)
    return drawn | layer_types(deck, drawn) | whole_rope(deck, drawn)


def qwen3(deck):
    drawn = rms(deck) | {"head_dim": deck("head_dim", [8, 12, 16]), "attention_bias": deck("bias", YES_AND_NO)}
    return drawn | layer_types(deck, drawn) | whole_rope(deck, drawn)


def olmo2(deck):
    drawn = rms(deck) | {"attention_bias": deck("bias", YES_AND_NO)}
    return drawn | whole_rope(deck, drawn)


def gemma2(deck):
    drawn = rms(deck) | {
        "hidden_activation": deck("gemma", ACTIVATIONS),
        "head_dim": deck("head_dim", [8, 12, 16]),
        "attention_bias": deck("bias", YES_AND_NO),
        "query_pre_attn_scalar": deck("scalar", [8, 24, 144]),
        "attn_logit_softcapping": deck("cap", [None, 2.0, 50.0]),
        "final_logit_softcapping": deck("final", [None, 3.0, 30.0]),
        "sliding_window": deck("window", [3, 6]),
    }
    kinds = ["full_attention", "sliding_attention", "full_attention"][-drawn["num_hidden_layers"] :]
    return drawn | deck("types", [{}, {"layer_types": kinds}]) | whole_rope(deck, drawn)


def gemma(deck):
    drawn = rms(deck) | {"head_dim": deck("head_dim", [8, 12, 16]), "attention_bias": deck("bias", YES_AND_NO)}
    return drawn | whole_rope(deck, drawn)


def mixed(drawn):
    """Types of layers: some with a window, all, none."""
    some = ["full_attention", "sliding_attention", "full_attention"][-drawn["num_hidden_layers"] :]
    return [some, some[::-1], ["full_attention"] * len(some), ["sliding_attention"] * len(some)]


def typed(deck, drawn, dim):
    """Layers with and without a window, whose rotary embeddings differ."""
    ropes = {kind: rope(deck, deck(kind, ROPE[:4]), dim) for kind in ("full_attention", "sliding_attention")}
    return {
        "sliding_window": deck("window", [3, 6]),
        "layer_types": deck("types", [None, *mixed(drawn)]),
        "rope_parameters": deck("typed", [ropes, ropes, ropes, None]),
    }


def gemma3_text(deck):
    drawn = rms(deck) | {
        "hidden_activation": deck("gemma", ACTIVATIONS),
        "head_dim": deck("head_dim", [8, 12, 16]),
        "attention_bias": deck("bias", YES_AND_NO),
        "query_pre_attn_scalar": deck("scalar", [8, 24, 144]),
        "final_logit_softcapping": deck("final", [None, 3.0, 30.0]),
        "sliding_window_pattern": deck("pattern", [2, 3]),
    }
    return drawn | typed(deck, drawn, drawn["head_dim"])


def gemma3(deck):
    return gemma3_text(deck) | {"final_logit_softcapping": None}


def olmo3(deck):
    drawn = rms(deck) | {"attention_bias": deck("bias", YES_AND_NO)}
    return drawn | typed(deck, drawn, 32 // drawn["num_attention_heads"])


def smollm3(deck):
    drawn = rms(deck) | {
        "attention_bias": deck("bias", YES_AND_NO),
        "mlp_bias": deck("mlp_bias", YES_AND_NO),
        "use_sliding_window": deck("slides", YES_AND_NO),
        "sliding_window": deck("window", [3, 6]),
    }
    drawn |= deck("rotary", [{"no_rope_layer_interval": 2}, {"no_rope_layers": [0, 1, 0]}, {"no_rope_layers": [1] * 3}])
    return drawn | {"rope_parameters": rope(deck, deck("rope", ROPE[:4]), 32 // drawn["num_attention_heads"])}


def ministral3(deck):
    drawn = rms(deck) | {"head_dim": deck("head_dim", [8, 12, 16]), "sliding_window": deck("window", [None, 3, 6])}
    parameters = rope(deck, deck("rope", ["yarn", "llama3", "linear", "default"]), drawn["head_dim"])
    parameters |= {"llama_4_scaling_beta": deck("beta", [0.1, 1.5])}
    return drawn | {"rope_parameters": parameters | {"original_max_position_embeddings": deck("original", [4, 9])}}


def mistral3(deck):
    return ministral3(deck) if deck("text", YES_AND_NO) else {"model_type": "mistral"} | mistral(deck)


def granite(deck):
    drawn = llama(deck) | {
        "embedding_multiplier": deck("embedding", [1.0, 3.0]),
        "residual_multiplier": deck("residual", [1.0, 0.3]),
        "attention_multiplier": deck("attention", [1.0, 0.1]),
        "logits_scaling": deck("logits", [1.0, 0.5, 3.0]),
    }
    if drawn["head_dim"] is None:  # this family has no default for null
        del drawn["head_dim"]
    return drawn


def olmo(deck):
    drawn = rms(deck) | {"attention_bias": deck("bias", YES_AND_NO), "clip_qkv": deck("clip", [None, 0.5, 2.0])}
    del drawn["rms_norm_eps"]
    return drawn | whole_rope(deck, drawn)


def command(deck):
    """Config keys of both families of Command models."""
    drawn = rms(deck) | {"attention_bias": deck("bias", YES_AND_NO), "logit_scale": deck("logits", [0.5, 1.0, 2.0])}
    drawn["layer_norm_eps"] = drawn.pop("rms_norm_eps")
    return drawn


def cohere(deck):
    drawn = command(deck) | {"use_qk_norm": deck("qk", YES_AND_NO)}
    return drawn | whole_rope(deck, drawn)


def cohere2(deck):
    drawn = command(deck) | {"sliding_window": deck("window", [3, 6])}
    drawn |= deck("types", [{"sliding_window_pattern": 2}, *({"layer_types": types} for types in mixed(drawn))])
    return drawn | {"rope_parameters": rope(deck, deck("rope", ROPE[:4]), 32 // drawn["num_attention_heads"])}


def starcoder2(deck):
    drawn = rms(deck) | {"use_bias": deck("bias", YES_AND_NO), "sliding_window": deck("window", [None, 3, 6])}
    drawn["norm_epsilon"] = drawn.pop("rms_norm_eps")
    return drawn | whole_rope(deck, drawn)


def stablelm(deck):
    drawn = phi(deck) | {
        "use_qkv_bias": deck("bias", YES_AND_NO),
        "use_parallel_residual": deck("parallel", YES_AND_NO),
    }
    del drawn["qk_layernorm"]
    return drawn


def phi3(deck):
    drawn = rms(deck) | {"sliding_window": deck("window", [None, 3, 6])}
    share = deck("share", [1.0, 0.5])
    kind = deck("rope", ["default", "longrope"])
    dim = int(32 // drawn["num_attention_heads"] * share)
    parameters = rope(deck, kind, dim, share)
    drawn["original_max_position_embeddings"] = parameters.get("original_max_position_embeddings", 4096)
    return drawn | {"rope_parameters": parameters}


def phi(deck):
    drawn = rms(
        deck, [(queries, keys) for queries, keys in HEADS if queries < 8]
    )  # a quarter of a head of 4 is no pair
    drawn["layer_norm_eps"] = drawn.pop("rms_norm_eps")
    share = deck("share", [0.5, 1.0, 0.25])
    dim = int(32 // drawn["num_attention_heads"] * share)
    kind = deck("rope", ROPE)
    return drawn | {"qk_layernorm": deck("qk", YES_AND_NO), "rope_parameters": rope(deck, kind, dim, share)}


def gpt_neox(deck):
    drawn = phi(deck) | {
        "use_parallel_residual": deck("parallel", YES_AND_NO),
        "attention_bias": deck("bias", YES_AND_NO),
    }
    del drawn["num_key_value_heads"], drawn["qk_layernorm"]
    return drawn


def gpt(deck):
    return {
        "activation_function": deck("activation", ACTIVATIONS),
        "tie_word_embeddings": deck("tied", YES_AND_NO),
        "layer_norm_epsilon": deck("eps", [1e-6, 1e-5, 1e-2]),
    }


def gpt_neo(deck):
    types = [[["global", "local"], 1]], [[["local"], 3]], [[["global"], 2]], [[["global"], 2], [["local"], 1]]
    types = deck("types", types)
    return gpt(deck) | {
        "num_heads": deck("heads", [2, 4, 8]),
        "num_layers": sum(len(kinds) * times for kinds, times in types),
        "attention_types": types,
        "window_size": deck("window", [3, 6]),
        "intermediate_size": deck("width", [None, 40]),
    }


def gpt2(deck):
    return gpt(deck) | {
        "n_head": deck("heads", [2, 4, 8]),
        "n_layer": deck("layers", [2, 3]),
        "n_inner": deck("width", [None, 40]),
        "scale_attn_weights": deck("scale", YES_AND_NO),
        "scale_attn_by_inverse_layer_idx": deck("inverse", YES_AND_NO + [True]),
        "reorder_and_upcast_attn": deck("upcast", YES_AND_NO),
    }


def configs(family, count):
    """The keys of `count` random models of a family."""
    deck = Deck(np.random.default_rng(zlib.crc32(family.encode())))
    return [globals()[family](deck) for _ in range(count)]


def families():
    """Parameters: every family, marked slow if an earlier one has the same names of modules."""
    seen = []
    for family in FAMILIES:
        yield pytest.param(family, marks=pytest.mark.slow if MODULES[family] in seen else ())
        seen.append(MODULES[family])
