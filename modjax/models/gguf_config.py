"""The ModelConfig in the metadata of a GGUF file, read as the Hugging Face config.json that it stands for."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from modjax.errors import InputError
from modjax.models import gguf_file
from modjax.models.config import ModelConfig
from modjax.models.families import FAMILIES
from modjax.models.family import Family
from modjax.models.gguf_file import Header
from modjax.models.values import Values

ARCHITECTURE = "general.architecture"
SIZES = {
    "V": "vocab_size",
    "D": "embedding_length",
    "N": "attention.head_count",
    "F": "feed_forward_length",
    "L": "block_count",
    "context": "context_length",
    "K": "attention.head_count_kv",
    "H": "attention.key_length",
}
EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
# {field: tensors that only a decoder in which it is true has}
SHOWN_BY = {
    "qkv_bias": ("blk.0.attn_q.bias", "blk.0.attn_qkv.bias"),
    "out_bias": ("blk.0.attn_output.bias",),
    "mlp_bias": ("blk.0.ffn_up.bias",),
}
# Tensors of one divisor per rotary pair: for all texts (Llama 3.1 and later), for short and for long ones (longrope).
FACTORS, SHORT, LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
YARN = {
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "attention_factor": "rope.scaling.yarn_attn_factor",
    "mscale_all_dim": "rope.scaling.yarn_log_multiplier",
    "llama_4_scaling_beta": "attention.temperature_scale",
}
_ROPE = """
    rope.freq_base rope.dimension_count rope.scale_linear rope.scaling.type rope.scaling.factor rope.scaling.attn_factor
    rope.scaling.original_context_length
"""
ROPE = {*_ROPE.split(), *YARN.values()}
IDS = {role: f"tokenizer.ggml.{name}_token_id" for role, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
PATTERN = "attention.sliding_window_pattern"
# Keys that must be absent or have this value.
ONLY = {"expert_count": 0, "attention.causal": True, "rope.scaling.yarn_ext_factor": 1.0}
WITHOUT_EFFECT = {"attention.value_length", "expert_used_count", "pooling_type", "rope.scaling.finetuned"}


class Architecture(NamedTuple):
    """How the metadata of one `general.architecture` gives the config.json of a family."""

    family: str  # its model_type
    keys: Mapping[str, str] = {}  # {key of config.json: key of the metadata}, beside those that all families have
    # Keys that follow from the sizes and from the names of the tensors.
    derived: Callable[[dict[str, int], Collection[str]], dict[str, Any]] = lambda sizes, tensors: {}
    windowed: str = ""  # the family of files with a sliding window, if it is another one


def _attention_scale(largest: int) -> Callable[..., dict[str, Any]]:
    """The file does not tell on what the scale of attention scores is based: the head width, or D / N in the largest
    model, which has this many layers."""
    return lambda sizes, tensors: {
        "query_pre_attn_scalar": sizes["D"] // sizes["N"] if sizes["L"] == largest else sizes["H"]
    }


WINDOW = {"sliding_window": "attention.sliding_window"}
SOFTCAP = {"final_logit_softcapping": "final_logit_softcapping"}
ARCHITECTURES = {
    "llama": Architecture("llama", windowed="mistral"),
    "mistral3": Architecture("ministral3"),
    "smollm3": Architecture("smollm3"),
    "granite": Architecture(
        "granite",
        {
            "embedding_multiplier": "embedding_scale",
            "attention_multiplier": "attention.scale",
            "residual_multiplier": "residual_scale",
            "logits_scaling": "logit_scale",
        },
    ),
    "phi2": Architecture("phi"),
    "phi3": Architecture("phi3", WINDOW),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gptneox": Architecture("gpt_neox", {"use_parallel_residual": "use_parallel_residual"}),
    "gpt2": Architecture("gpt2"),
    "olmo": Architecture("olmo", {"clip_qkv": "attention.clamp_kqv"}),
    "olmo2": Architecture("olmo2", windowed="olmo3"),
    "gemma": Architecture("gemma"),
    "gemma2": Architecture(
        "gemma2", WINDOW | SOFTCAP | {"attn_logit_softcapping": "attn_logit_softcapping"}, _attention_scale(largest=46)
    ),
    "gemma3": Architecture(
        "gemma3_text", WINDOW | SOFTCAP | {"rope_local_base_freq": "rope.freq_base_swa"}, _attention_scale(largest=62)
    ),
    "stablelm": Architecture(  # the converter says "parallel" where the checkpoint says nothing; the tensors do tell
        "stablelm",
        {"use_parallel_residual": "use_parallel_residual"},
        lambda sizes, tensors: {"use_parallel_residual": "blk.0.ffn_norm.weight" not in tensors},
    ),
    "starcoder2": Architecture("starcoder2"),
    "command-r": Architecture(
        "cohere",
        {"logit_scale": "logit_scale"},
        lambda sizes, tensors: {"use_qk_norm": "blk.0.attn_q_norm.weight" in tensors},
    ),
    "cohere2": Architecture("cohere2", WINDOW | {"logit_scale": "logit_scale"}),
}


def read(head: Header, path: str | pathlib.Path) -> ModelConfig:
    """The config; errors and warnings are those of `described`."""
    return ModelConfig.from_hf(described(head, path), str(path))


def described(head: Header, path: str | pathlib.Path) -> dict[str, Any]:
    """The config.json that the metadata of a file stands for.

    Raises InputError naming the key for missing, invalid and unsupported values; warns of keys that are unknown and may
    have an effect.
    """
    name = head.metadata.get(ARCHITECTURE)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(f"{path}: {ARCHITECTURE} is {name!r}; supported are {', '.join(ARCHITECTURES)}")
    own = {key.removeprefix(f"{name}."): value for key, value in head.metadata.items() if key.startswith(f"{name}.")}
    values = Values(dict(zip(own, map(_decimal, own.values()), strict=True)), {}, (), f"{path}: metadata of {name}")
    chosen = ARCHITECTURES[name]
    if chosen.windowed and values["attention.sliding_window"]:
        chosen = chosen._replace(family=chosen.windowed, keys=chosen.keys | WINDOW)
    values.warn_of_unknown({*SIZES.values(), *EPSILONS, *ROPE, PATTERN, *ONLY, *WITHOUT_EFFECT, *chosen.keys.values()})
    for key, only in ONLY.items():
        values.require(key, only)
    found = _as_hf(chosen, values, head, path)
    found |= {f"{role}_token_id": head.metadata.get(key) for role, key in IDS.items()}
    magnitude, scaling = values["rope.scaling.attn_factor"], ModelConfig.from_hf(found, str(path)).rope_scaling
    if magnitude is not None and scaling is not None and not np.isclose(scaling.magnitude, magnitude):
        found["rope_scaling"]["attention_factor"] = magnitude  # not that of the formula, which is exact without
    return found


def _as_hf(chosen: Architecture, values: Values, head: Header, path) -> dict[str, Any]:
    """The config.json."""
    family, sizes = FAMILIES[chosen.family], _sizes(values, head)
    _check_heads(family, values, sizes)
    found = {"model_type": chosen.family} | {key: sizes[letter] for letter, key in family.sizes.items()}
    fields = {field: any(name in head.tensors for name in names) for field, names in SHOWN_BY.items()}
    fields["tied"] = "output.weight" not in head.tensors
    if "norm_eps" in family.keys:
        fields["norm_eps"] = values.number(next((key for key in EPSILONS if key in values.given), EPSILONS[0]))
    for field, (_, key) in family.keys.items():
        if field in fields:
            found[key] = found.get(key, False) or fields[field]  # one key may stand for the biases of several maps
    for key, name in chosen.keys.items():
        if name in values.given:
            found[key] = values[name] if isinstance(values[name], bool) else values[name] or None  # no window is 0
    if "rope_scaling" in family.known:
        found |= _rope(values, sizes, head, path)
    return found | _layer_types(family, values) | chosen.derived(sizes, head.tensors)


def _sizes(values: Values, head: Header) -> dict[str, int]:
    sizes = {letter: values.size(SIZES[letter]) for letter in ("D", "N", "F", "L", "context")}
    embedding = head.tensors.get("token_embd.weight")
    rows = len(head.metadata.get("tokenizer.ggml.tokens", ())) if embedding is None else embedding.shape[0]
    if "attention.key_length" not in values.given and sizes["D"] % sizes["N"]:
        raise values.error("embedding_length", f"a multiple of attention.head_count = {sizes['N']}")
    others = {"V": rows, "K": sizes["N"], "H": sizes["D"] // sizes["N"]}
    given = {letter: values.size(SIZES[letter]) for letter in others if SIZES[letter] in values.given}
    return sizes | others | given


def _check_heads(family: Family, values: Values, sizes: dict[str, int]) -> None:
    """Raises InputError for key-value heads, or widths of heads, that the family cannot have."""
    values.require("attention.value_length", sizes["H"])
    if "K" not in family.sizes:
        values.require("attention.head_count_kv", sizes["N"])
    if "H" not in family.sizes:
        values.require("attention.key_length", sizes["D"] // sizes["N"])


def _layer_types(family: Family, values: Values) -> dict[str, Any]:
    """The layers that have the window: listed, or all but every n-th; by default as in the family."""
    pattern = values[PATTERN]
    if isinstance(pattern, list):
        return {"layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern]}
    if pattern is None or "sliding_window_pattern" not in family.known:
        return {}
    return {"sliding_window_pattern": values.size(PATTERN)}


def _rope(values: Values, sizes: dict[str, int], head: Header, path) -> dict[str, Any]:
    """The keys of the rotary embedding."""
    dim = values.size("rope.dimension_count") if "rope.dimension_count" in values.given else sizes["H"]
    theta = values.number("rope.freq_base") if "rope.freq_base" in values.given else 10_000.0
    base = {"rope_theta": theta, "partial_rotary_factor": _share(dim, sizes["H"])}
    if FACTORS in head.tensors:
        values.require("rope.scaling.type", "none")
        divisors = _divisors(head, path, FACTORS, dim)
        scaling = {"short_factor": divisors, "long_factor": divisors, "attention_factor": 1.0}
        return {"rope_theta": theta, "rope_scaling": base | scaling | {"rope_type": "longrope"}}
    original = values["rope.scaling.original_context_length"]
    found = {"rope_theta": theta, "rope_scaling": base | _scaling(values, head, path, dim)}
    return found if original is None else found | {"original_max_position_embeddings": original}


def _share(dim: int, width: int) -> float:
    """The share of a head that is rotated; its product with the width, rounded down, is `dim`."""
    return dim / width if int(width * (dim / width)) == dim else (dim + 0.5) / width


def _scaling(values: Values, head: Header, path, dim: int) -> dict[str, Any]:
    """The kind of scaling as rope_type, and the keys of this kind."""
    factor = values["rope.scaling.factor"] or values["rope.scale_linear"]
    kind = values["rope.scaling.type"] or ("none" if factor in (None, 1) else "linear")
    if kind in ("none", "longrope") and (SHORT in head.tensors or LONG in head.tensors):
        short, long = ([_decimal(value) for value in _divisors(head, path, name, dim)] for name in (SHORT, LONG))
        return {"rope_type": "longrope", "short_factor": short, "long_factor": long}
    values.require("rope.scaling.attn_factor", 1.0)
    if kind == "none":
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        given = {key: values[name] for key, name in YARN.items()}
        return {"rope_type": kind, "factor": factor} | given | ({"mscale": 1.0} if given["mscale_all_dim"] else {})
    raise values.error("rope.scaling.type", f"'none', 'linear', 'yarn', or 'longrope' with {SHORT!r} and {LONG!r}")


def _divisors(head: Header, path, name: str, dim: int) -> list[float]:
    if name not in head.tensors:
        raise InputError(f"{path}: {name!r} is missing")
    found_J = gguf_file.read(name, head.tensors[name])
    if found_J.shape != (dim // 2,):
        raise InputError(f"{path}: {name!r} has shape {found_J.shape}, expected {(dim // 2,)}")
    return found_J.tolist()


def _decimal(value: Any) -> Any:
    """The shortest decimal of a float32: 1e-05, not 9.99999974e-06, so that configs equal those of config.json."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
