"""Fields computed from keys of a Hugging Face config.json: the rotary embedding, of all layers or of each type."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.hf_config import Sizes, layer_windows
from modjax.models.values import Values
from modjax.ops.rope import Rope, Scaling

ROPE_KINDS = {kind: kind for kind in ("default", "linear", "llama3", "yarn", "longrope")}
# Kinds whose frequencies do not depend on the length of the sequence, for families in which layers differ.
ONE_LENGTH = {kind: name for kind, name in ROPE_KINDS.items() if kind != "longrope"}
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "longrope": ("factor", "attention_factor", "short_factor", "long_factor"),
}
ROPE_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")


def rope(
    values: Values,
    sizes: Sizes,
    theta: str = "rope_theta",
    share: str = "partial_rotary_factor",
    whole: bool = True,
    kinds: Mapping[str, str] = ROPE_KINDS,
    also: Collection[str] = (),
) -> dict[str, Any]:
    """The fields rope_theta, rope_dim and rope_scaling.

    transformers 5 has all their keys in rope_parameters; older files have some at the top level.

    theta, share: top-level keys of the base and of the share of each head that is rotated.
    whole: the family rotates whole heads, so any other share is refused.
    kinds: {rope_type: kind of Scaling} that the family supports.
    also: further keys of rope_parameters, which are read elsewhere.
    """
    inner = _rope_values(values, sizes, _given(values), theta, share)
    nested = [key for key, value in inner.given.items() if isinstance(value, dict)]
    if nested:
        raise InputError(f"{inner.where}: {', '.join(nested)}: only one rotary embedding for all layers is supported")
    found = _rope(inner, sizes, whole, kinds, also)
    if theta != "rope_theta":
        values.require("rope_theta", inner["rope_theta"])
        values.require("partial_rotary_factor", inner["partial_rotary_factor"])
    return found


def layer_ropes(
    values: Values, sizes: Sizes, slides: Callable[[Values, int], bool], local_theta: str
) -> dict[str, Any]:
    """The fields of layer_windows and of rope, and local_rope, where layers with and without a window differ in rope.

    transformers 5 has rope_parameters for each type of layer. In older files rope_theta and rope_scaling are those of
    layers without a window; local_theta is the key of the base of the others, which are not scaled.
    """
    windows = layer_windows(values, sizes, slides)
    typed = Values(values.inner("rope_parameters"), {}, (), f"{values.where}: rope_parameters")
    if set(typed.given) - {"full_attention", "sliding_attention"}:
        raise values.error("rope_parameters", "an object with the keys full_attention and sliding_attention")
    scaling = values.inner("rope_scaling")
    if "type" in scaling and "rope_type" not in scaling:  # transformers reads the older name in other families alone
        raise values.error("rope_scaling", "the key rope_type in it")
    given = typed.inner("full_attention") | scaling
    full = _rope(_rope_values(values, sizes, given, "rope_theta"), sizes, kinds=ONE_LENGTH)
    local = _rope(_rope_values(values, sizes, typed.inner("sliding_attention"), local_theta), sizes, kinds=ONE_LENGTH)
    if windows["window"] is None or local == full:
        return windows | full
    if windows["local"] is None:
        return windows | local
    return windows | full | {"local_rope": Rope(local["rope_theta"], local["rope_scaling"])}


def listed_rotary(values: Values, sizes: Sizes) -> dict[str, Any]:
    """The fields of layer_windows, and rotary, from no_rope_layers, which has a 1 for a layer with rotary embedding."""
    layers, given = sizes["L"], values["no_rope_layers"]
    if given is None:
        every = values.size("no_rope_layer_interval")
        given = [int((i + 1) % every != 0) for i in range(layers)]
    if not isinstance(given, list | tuple) or len(given) < layers or any(one not in (0, 1) for one in given):
        raise values.error("no_rope_layers", f"a list of 0 or 1 for each of {layers} layers")
    rotary = tuple(one == 1 for one in given[:layers])
    windows = layer_windows(values, sizes, slides=lambda _, i: not rotary[i])
    return windows | {"rotary": None if all(rotary) else rotary}


def local_rotary(values: Values, sizes: Sizes, slides: Callable[[Values, int], bool]) -> dict[str, Any]:
    """The fields of layer_windows, and rotary: only layers with a window have rotary embedding."""
    windows = layer_windows(values, sizes, slides)
    none = (False,) * sizes["L"]
    return windows | {"rotary": none if windows["window"] is None else windows["local"]}


def position_scale(values: Values, sizes: Sizes) -> dict[str, Any]:
    """The field position_scale, from keys in rope_parameters."""
    inner = _rope_values(values, sizes, _given(values))
    if inner["llama_4_scaling_beta"] == 0:
        return {"position_scale": None}
    length = inner.size("original_max_position_embeddings")
    return {"position_scale": (inner.number("llama_4_scaling_beta"), length)}


def _given(values: Values) -> dict[str, Any]:
    return values.inner("rope_scaling") or values.inner("rope_parameters")


def _rope_values(
    values: Values, sizes: Sizes, given: dict[str, Any], theta: str = "rope_theta", share: str = "partial_rotary_factor"
) -> Values:
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
        given = given | {"original_max_position_embeddings": at_top}
    return Values(given, defaults, (), f"{values.where}: rope_parameters")


def _rope(
    inner: Values, sizes: Sizes, whole: bool = True, kinds: Mapping[str, str] = ROPE_KINDS, also: Collection[str] = ()
) -> dict[str, Any]:
    """The fields rope_theta, rope_dim and rope_scaling, from the keys of one rotary embedding."""
    name = inner["rope_type"]
    if not isinstance(name, str) or name not in kinds:
        file = inner.where.removesuffix(": rope_parameters")
        raise InputError(f"{file}: rope scaling {name!r} is not supported; expected one of {', '.join(kinds)}")
    kind = kinds[name]
    inner.warn_of_unknown((*ROPE_COMMON, *ROPE_KEYS[kind], *also))
    if inner.number("rope_theta") <= 1:
        raise inner.error("rope_theta", "a number above 1")
    if whole:
        inner.require("partial_rotary_factor", 1.0)
    dim = int(sizes["H"] * inner.number("partial_rotary_factor"))
    scaling = None if kind == "default" else _scaling(kind, inner, sizes["context"], dim)
    return {"rope_theta": inner.number("rope_theta"), "rope_dim": dim, "rope_scaling": scaling}


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
