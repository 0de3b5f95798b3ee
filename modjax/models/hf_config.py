"""Fields computed from keys of a Hugging Face config.json: activation and attention windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modjax.errors import InputError
from modjax.models.values import Values

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


def activation(
    values: Values, sizes: Sizes, key: str = "hidden_act", names: Mapping[str, str] = ACTIVATIONS
) -> dict[str, Any]:
    """The field activation. names: {name in the file: key of modjax.models.block.ACTIVATE}."""
    name = values[key]
    if not isinstance(name, str) or name not in names:
        raise InputError(f"{values.where}: {key} is {name!r}; supported are {', '.join(names)}")
    return {"activation": names[name]}


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
