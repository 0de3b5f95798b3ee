"""Every family equals transformers, logit for logit, on random configs: in one pass and through the cache."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.models import hf
from modjax.models.config import FAMILIES, ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.hf_names import MODULES

VARIANTS, QUICK = 10, 3  # configs of each family, and those of them that are not marked slow
B, T, PREFILL, PADDING = 2, 17, 8, 3


def variants(family):
    """Parameters (family, seed, config keys). The quick ones use each option of all keys with up to three options."""
    for seed, keys in enumerate(drawn.configs(family, VARIANTS)):
        yield pytest.param(family, seed, keys, marks=pytest.mark.slow if seed >= QUICK else ())


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
    """Logits with a cache, token by token after the first ones. Row 1 has three of these fewer."""
    prefill, decode = run_cached
    lengths_B = np.array([PREFILL, PREFILL - PADDING])
    positions_BT = np.tile(np.arange(PREFILL), (B, 1))
    ends_BT = np.where(positions_BT < lengths_B[:, None], PREFILL, 0)
    places = (jnp.asarray(place) for place in (tokens_BT[:, :PREFILL], positions_BT, ends_BT))
    hidden_BTD, cache = prefill(decoder, *places, T - PREFILL)
    cache = cache.branched(jnp.asarray(lengths_B[:, None] - 1))
    parts = [hidden_BTD]
    for t in range(T - PREFILL):
        token_BX = np.take_along_axis(tokens_BT, lengths_B[:, None] + t, axis=1)
        hidden_BXD, cache = decode(decoder, jnp.asarray(token_BX), cache)
        parts.append(hidden_BXD)
    logits_BTV = np.asarray(decoder.logits(jnp.concatenate(parts, axis=1)))
    return [logits_BTV[0], np.delete(logits_BTV[1], range(lengths_B[1], PREFILL), axis=0)]


@pytest.mark.parametrize(
    ("family", "seed", "overrides"), [variant for family in MODULES for variant in variants(family)]
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


MINISTRAL3 = {"rope_theta": 1e4, "original_max_position_embeddings": 5}
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
    "gemma3_text": {
        "rope_theta": (1e4, 50.0),
        "rope_local_base_freq": (1e4, 50.0),
        "sliding_window_pattern": (2, 3),
        "final_logit_softcapping": (3.0, None),
    },
    "olmo3": {"layer_types": (["full_attention"] * 3, ["sliding_attention", "full_attention", "sliding_attention"])},
    "smollm3": {"no_rope_layers": ([1, 0, 1], [1, 1, 0]), "use_sliding_window": (True, False)},
    "ministral3": {"rope_parameters": tuple(MINISTRAL3 | {"llama_4_scaling_beta": beta} for beta in (0.1, 2.0))},
    "granite": {
        "embedding_multiplier": (1.0, 3.0),
        "residual_multiplier": (1.0, 0.3),
        "attention_multiplier": (1.0, 0.1),
        "logits_scaling": (1.0, 2.0),
    },
    "olmo": {"clip_qkv": (0.3, None)},
    "cohere": {"logit_scale": (0.5, 1.0), "layer_norm_eps": (1e-5, 0.1)},
    "cohere2": {"sliding_window_pattern": (2, 3), "sliding_window": (3, 8)},
    "starcoder2": {"sliding_window": (3, None), "norm_epsilon": (1e-5, 0.1)},
    "stablelm": {"partial_rotary_factor": (0.5, 1.0), "layer_norm_eps": (1e-5, 0.1)},
}
BESIDE = {"qwen2": {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}}
BESIDE |= {"qwen3": BESIDE["qwen2"], "gpt_neox": {"rotary_pct": 0.5}, "smollm3": {"sliding_window": 3}}


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
