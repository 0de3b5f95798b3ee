"""Every family equals transformers, logit for logit, on random configs: in one pass and through the cache."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.models import hf
from modjax.models.cache import Cache
from modjax.models.config import FAMILIES, ModelConfig
from modjax.models.decoder import Decoder

VARIANTS, QUICK = 10, 5  # configs of each family, and those of them that are not marked slow
B, T, PREFILL, PADDING = 2, 17, 8, 3

HEADS = [(4, 2), (4, 4), (4, 1), (8, 2), (2, 2), (2, 1)]
ACTIVATIONS = ["silu", "gelu", "gelu_new", "relu", "gelu_pytorch_tanh", "quick_gelu", "relu2", "tanh"]
ROPE = ["default", "linear", "llama3", "yarn", "longrope", "default"]
YES_AND_NO = [True, False]


class Deck:
    """Random choices that use each option once before any is repeated."""

    def __init__(self, rng):
        self.rng, self.left = rng, {}

    def __call__(self, name, options):
        if not self.left.get(name):
            self.left[name] = list(self.rng.permutation(len(options)))
        return options[self.left[name].pop()]


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


DRAWN = {
    family: draw
    for draw in (llama, mistral, phi, phi3, qwen2, qwen3, gpt_neox, gpt_neo, gpt2, olmo2, gemma2)
    for family in [draw.__name__]
}


def variants(family):
    """Parameters (family, seed, config keys). The quick ones use each option of all keys with up to five options."""
    deck = Deck(np.random.default_rng(zlib.crc32(family.encode())))
    for seed in range(VARIANTS):
        yield pytest.param(family, seed, DRAWN[family](deck), marks=pytest.mark.slow if seed >= QUICK else ())


@pytest.fixture(scope="module")
def worst():
    """{(family, how): worst error}, printed at the end."""
    errors = {}
    yield errors
    for (family, how), error in sorted(errors.items()):
        print(f"{family:10} {how:8} worst error {error:.1e}")


def torch_logits(model, tokens_BT):
    import torch

    with torch.no_grad():
        return model(torch.tensor(tokens_BT)).logits.float().numpy()


def logits(decoder, tokens_BT, run):
    return np.asarray(decoder.logits(run(decoder, jnp.asarray(tokens_BT))))


def cached_logits(decoder, tokens_BT, run_cached):
    """Logits with a cache. Row 1 starts with three columns of padding, so it ends three tokens earlier."""
    columns_BT = np.arange(T)[None] - np.array([0, PADDING])[:, None]
    positions_BT, segments_BT = np.maximum(columns_BT, 0), (columns_BT >= 0).astype(np.int32)
    padded_BT = np.take_along_axis(tokens_BT, positions_BT, axis=1)
    cache, parts = Cache.empty(decoder.config, B, T), []
    for columns in (slice(0, PREFILL), *(slice(t, t + 1) for t in range(PREFILL, T))):
        places = (padded_BT[:, columns], positions_BT[:, columns], segments_BT[:, columns])
        hidden_BTD, cache = run_cached(decoder, cache, *(jnp.asarray(place) for place in places))
        parts.append(hidden_BTD)
    logits_BTV = np.asarray(decoder.logits(jnp.concatenate(parts, axis=1)))
    return [logits_BTV[0], logits_BTV[1, PADDING:]]


@pytest.mark.parametrize(
    ("family", "seed", "overrides"), [variant for family in FAMILIES for variant in variants(family)]
)
def test_logits_equal_transformers(torch_model, tmp_path, run, run_cached, worst, family, seed, overrides):
    model = torch_model(family, seed, **overrides)
    model.save_pretrained(tmp_path)
    decoder = hf.read(tmp_path)
    tokens_BT = np.random.default_rng(seed).integers(0, 61, (B, T))
    expected_BTV = torch_logits(model, tokens_BT)
    assert np.ptp(expected_BTV, axis=-1).min() > 0.5, "logits too alike to tell models apart"
    got = {"prefill": logits(decoder, tokens_BT, run), "cached": cached_logits(decoder, tokens_BT, run_cached)}
    for how, rows in got.items():
        for row_TV, expected_TV in zip(rows, expected_BTV, strict=True):
            expected_TV = expected_TV[: len(row_TV)]
            worst[family, how] = max(worst.get((family, how), 0.0), np.abs(row_TV - expected_TV).max())
            np.testing.assert_allclose(row_TV, expected_TV, atol=1e-4, rtol=0, err_msg=how)


# Keys that do not change the shapes of weights, each with two values that give different models.
MATTERS = {
    "llama": {"rms_norm_eps": (1e-6, 0.1), "hidden_act": ("silu", "relu"), "rope_theta": (1e4, 50.0)},
    "mistral": {"sliding_window": (3, None)},
    "phi": {"partial_rotary_factor": (0.5, 1.0), "layer_norm_eps": (1e-5, 0.1)},
    "phi3": {"sliding_window": (3, None), "partial_rotary_factor": (0.5, 1.0)},
    "qwen2": {"use_sliding_window": (True, False), "max_window_layers": (1, 2), "sliding_window": (3, 8)},
    "qwen3": {"layer_types": (["full_attention"] * 3, ["sliding_attention", "full_attention", "sliding_attention"])},
    "gpt_neox": {"use_parallel_residual": (True, False), "rotary_pct": (0.5, 1.0), "rotary_emb_base": (1e4, 50)},
    "gpt_neo": {
        "window_size": (3, 8),
        "attention_types": ([[["global", "local", "global"], 1]], [[["local", "global", "global"], 1]]),
    },
    "gpt2": {"scale_attn_weights": (True, False), "scale_attn_by_inverse_layer_idx": (True, False)},
    "olmo2": {"rms_norm_eps": (1e-6, 0.1)},
    "gemma2": {
        "query_pre_attn_scalar": (16, 4),
        "attn_logit_softcapping": (1.0, None),
        "final_logit_softcapping": (3.0, None),
        "sliding_window": (3, 8),
    },
}
BESIDE = {"qwen2": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}}
BESIDE |= {"qwen3": BESIDE["qwen2"], "gpt_neox": {"rotary_pct": 0.5}}


@pytest.mark.parametrize(("family", "key"), [(family, key) for family, keys in MATTERS.items() for key in keys])
def test_no_key_is_read_in_vain(tiny_json, run, family, key):
    weights = None
    seen = []
    for value in MATTERS[family][key]:
        config = ModelConfig.from_hf(tiny_json(family, **BESIDE.get(family, {}) | {key: value}), "config.json")
        decoder = Decoder.init(config, jax.random.key(0))
        weights = weights or [leaf * 10 if leaf.ndim > 1 else leaf for leaf in jax.tree.leaves(decoder)]
        decoder = jax.tree.unflatten(jax.tree.structure(decoder), weights)
        seen.append(logits(decoder, np.arange(2 * T).reshape(2, T), run))
    assert np.abs(seen[0] - seen[1]).max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_as_near_to_float32_as_in_transformers(torch_model, tmp_path, run, family):
    model = torch_model(family)
    model.save_pretrained(tmp_path)
    decoder = hf.read(tmp_path, jnp.bfloat16)
    tokens_BT = np.random.default_rng(0).integers(0, 61, (4, T))
    exact_BTV = torch_logits(model, tokens_BT)
    theirs, ours = torch_logits(model.bfloat16(), tokens_BT), logits(decoder, tokens_BT, run)
    error = {who: np.square(got - exact_BTV).mean() ** 0.5 for who, got in (("theirs", theirs), ("ours", ours))}
    assert run(decoder, jnp.asarray(tokens_BT)).dtype == jnp.bfloat16
    assert error["ours"] < 1.25 * error["theirs"]
