"""Fields computed from keys of a Hugging Face config.json: activation, rotary embedding, attention windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.values import Values
from modjax.ops.rope import Scaling

Sizes = Mapping[str, int]

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "tanh": "tanh",
}
ROPE_KINDS = {kind: kind for kind in ("default", "linear", "llama3", "yarn", "longrope")}
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "longrope": ("factor", "attention_factor", "short_factor", "long_factor"),
}
ROPE_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


def activation(values: Values, sizes: Sizes, key: str = "hidden_act") -> dict[str, Any]:
    """The field activation."""
    name = values[key]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise InputError(f"{values.where}: {key} is {name!r}; supported are {', '.join(ACTIVATIONS)}")
    return {"activation": ACTIVATIONS[name]}


def rope(
    values: Values,
    sizes: Sizes,
    theta: str = "rope_theta",
    share: str = "partial_rotary_factor",
    whole: bool = True,
    kinds: Mapping[str, str] = ROPE_KINDS,
) -> dict[str, Any]:
    """The fields rope_theta, rope_dim and rope_scaling.

    transformers 5 has all their keys in rope_parameters; older files have some at the top level.

    theta, share: top-level keys of the base and of the share of each head that is rotated.
    whole: the family rotates whole heads, so any other share is refused.
    kinds: {rope_type: kind of Scaling} that the family supports.
    """
    inner = _rope_values(values, sizes, theta, share)
    name = inner["rope_type"]
    if not isinstance(name, str) or name not in kinds:
        raise InputError(f"{values.where}: rope scaling {name!r} is not supported; expected one of {', '.join(kinds)}")
    kind = kinds[name]
    inner.warn_of_unknown((*ROPE_COMMON, *ROPE_KEYS[kind]))
    if inner.number("rope_theta") <= 1:
        raise inner.error("rope_theta", "a number above 1")
    if whole:
        inner.require("partial_rotary_factor", 1.0)
    if theta != "rope_theta":
        values.require("rope_theta", inner["rope_theta"])
        values.require("partial_rotary_factor", inner["partial_rotary_factor"])
    dim = int(sizes["H"] * inner.number("partial_rotary_factor"))
    scaling = None if kind == "default" else _scaling(kind, inner, sizes["context"], dim)
    return {"rope_theta": inner.number("rope_theta"), "rope_dim": dim, "rope_scaling": scaling}


def _rope_values(values: Values, sizes: Sizes, theta: str, share: str) -> Values:
    given = values.inner("rope_scaling") or values.inner("rope_parameters")
    defaults = {
        "rope_type": given.get("type", "default"),
        "rope_theta": values[theta],
        "partial_rotary_factor": values[share],
        "original_max_position_embeddings": sizes["context"],
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": True,
    }
    at_top = values["original_max_position_embeddings"]
    if at_top is not None:  # it overrides the nested key, as in transformers
        given["original_max_position_embeddings"] = at_top
    inner = Values(given, defaults, (), f"{values.where}: rope_parameters")
    nested = [key for key, value in given.items() if isinstance(value, dict)]
    if nested:
        raise InputError(f"{inner.where}: {', '.join(nested)}: only one rotary embedding for all layers is supported")
    return inner


def _scaling(kind: str, inner: Values, context: int, dim: int) -> Scaling:
    if kind == "linear":
        return Scaling(kind, inner.number("factor"))
    original = inner.size("original_max_position_embeddings")
    if kind == "llama3":
        slow, fast = inner.number("low_freq_factor"), inner.number("high_freq_factor")
        if fast <= slow:
            raise inner.error("high_freq_factor", f"more than low_freq_factor, {slow}")
        return Scaling(kind, inner.number("factor"), original, slow, fast)
    factor = context / original if inner["factor"] is None else inner.number("factor")
    if kind == "longrope":
        if original == 1:
            raise inner.error("original_max_position_embeddings", "more than 1 token")
        short, long = (inner.numbers(key, dim // 2) for key in ("short_factor", "long_factor"))
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return Scaling(kind, factor, original, magnitude=_magnitude(inner, magnitude), short=short, long=long)
    return Scaling(
        kind,
        factor,
        original,
        slow=inner.number("beta_slow"),
        fast=inner.number("beta_fast"),
        truncate=inner.flag("truncate"),
        magnitude=_magnitude(inner, _yarn_magnitude(inner, factor)),
    )


def _magnitude(inner: Values, default: float) -> float:
    return default if inner["attention_factor"] is None else inner.number("attention_factor")


def _yarn_magnitude(inner: Values, factor: float) -> float:
    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0

    if inner["mscale"] and inner["mscale_all_dim"]:
        return magnitude(inner.number("mscale")) / magnitude(inner.number("mscale_all_dim"))
    return magnitude(1.0)


def layer_windows(values: Values, sizes: Sizes, slides: Callable[[Values, int], bool]) -> dict[str, Any]:
    """The fields window and local, from layer_types; if absent, layer i has the window if slides(values, i)."""
    layers = sizes["L"]
    used = values["use_sliding_window"] is None or values.flag("use_sliding_window")
    window = values.size("sliding_window") if used else None
    types = values["layer_types"]
    if types is None:
        return _windows(window, tuple(window is not None and slides(values, i) for i in range(layers)))
    if not isinstance(types, list | tuple) or len(types) != layers:
        raise values.error("layer_types", f"a list of {layers} types, one per layer")
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise values.error("layer_types", "only 'full_attention' and 'sliding_attention'")
    local = tuple(kind == "sliding_attention" for kind in types)
    if any(local) and window is None:
        raise values.error("sliding_window", "a width, and use_sliding_window true, for the 'sliding_attention' layers")
    return _windows(window, local)


def alternating_windows(values: Values, sizes: Sizes) -> dict[str, Any]:
    """The fields window and local of GPT-Neo, whose attention_types is [[types, repeats], ...]."""
    layers, given = sizes["L"], values["attention_types"]
    try:
        fits = sum(len(kinds) * repeats for kinds, repeats in given) == layers
        types = [kind for kinds, repeats in given for _ in range(repeats) for kind in kinds] if fits else []
    except (TypeError, ValueError) as error:
        raise values.error("attention_types", "[[[type, ...], repeats], ...]") from error
    if len(types) != layers or any(kind not in ("global", "local") for kind in types):
        raise values.error("attention_types", f"'global' or 'local' for each of {layers} layers")
    values.require("attention_layers", types)
    return _windows(values.size("window_size"), tuple(kind == "local" for kind in types))


def _windows(window: int | None, local: tuple[bool, ...]) -> dict[str, Any]:
    if not any(local):
        return {"window": None, "local": None}
    return {"window": window, "local": None if all(local) else local}
