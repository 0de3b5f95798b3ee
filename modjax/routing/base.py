"""The one router protocol, how a router and a library become what the decoder calls, and how routers are stored."""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.ops.lora import LoRA, Mix, Plan, mixture


class BaseModel(Protocol):
    """The part of a model that routers read; `modjax.Model` is one."""

    @property
    def name(self) -> str: ...

    @property
    def params(self) -> Decoder: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def config(self) -> ModelConfig: ...

    def check(self, library: Library) -> None:
        """Raises InputError unless the library's experts are for this model."""


class Context(NamedTuple):
    """What a router may know of a batch beside the activations."""

    expert_B: jax.Array | None = None  # int32[B], which of the router's `choices` each example is; -1 is none of them


def static(default=dataclasses.MISSING):
    """A router's field that is a setting and no array: jit compiles anew when it changes."""
    return dataclasses.field(default=default, metadata={"static": True})


def per_site(axes: str):
    """A router's field {site: array}; axes name the array's, such as "LEI", so that `check` can compare them."""
    return dataclasses.field(metadata={"axes": axes})


def named(axes: str):
    """A router's field of one array, not one a site; axes name the array's, such as "LBE", as in `per_site`."""
    return dataclasses.field(metadata={"axes": axes, "whole": True})


class Router:
    """A pytree that weighs experts: `weights = router(site, x_BTI, context)`, inside one block.

    Subclasses are dataclasses (made and registered here), found again by name when loaded. Every array
    field has the layer axis first, alone or in nested dicts; inside a block the router holds that layer's slice
    only. Arrays that belong to sites are declared with `per_site(axes)`, others may be with `named(axes)`, settings
    are with `static()`, and the number of experts, where it is a setting, is called `n_experts`: what `check` holds
    against a library. Weights are float32 [E], [B,E] or [B,T,E]; with mix="heads" [B,H,E], for H blocks of I and of O.
    """

    mix: Mix = "parameters"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))

    def __call__(self, site: str, x_BTI: jax.Array, context: Context) -> jax.Array:
        raise NotImplementedError

    def choices(self, library: Library) -> tuple[str, ...]:
        """What `context.expert_B` counts, by name; () for a router that does not look at it."""
        return ()

    def id_of(self, task: str, library: Library) -> int | None:
        """The `context.expert_B` of a task's examples; None where the router has nothing to say of them."""
        return None

    def save(self, path: str | pathlib.Path) -> None:
        """Writes one safetensors file, whole or not at all: the arrays, with the class and its settings as metadata."""
        arrays, settings = {}, {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("static"):
                settings[field.name] = value.item() if isinstance(value, np.generic) else value
            else:
                arrays |= _flatten(field.name, value)
        metadata = {"router": _kind(type(self)), "settings": json.dumps(settings)}
        draft = f"{path}.writing"
        safetensors.numpy.save_file(arrays, draft, metadata)
        os.replace(draft, path)


def top_k_softmax(score_BTE: jax.Array, top_k: int, temperature: float = 1.0) -> jax.Array:
    """Softmax over the k largest scores of each token, exact zeros elsewhere, float32[B,T,E]."""
    n_experts = score_BTE.shape[-1]
    if not 0 < top_k < n_experts:
        return jax.nn.softmax(score_BTE / temperature)
    top_BTk, ids_BTk = jax.lax.top_k(score_BTE, top_k)
    weights_BTk = jax.nn.softmax(top_BTk / temperature)
    return spread(weights_BTk, ids_BTk, n_experts)


def top_k_shares(score_BE: jax.Array, top_k: int) -> jax.Array:
    """The k largest scores of each row by their sum, exact zeros elsewhere, float32[B,E]; all alike where all are 0."""
    n_experts = score_BE.shape[1]
    if 0 < top_k < n_experts:
        top_Bk, ids_Bk = jax.lax.top_k(score_BE, top_k)
        score_BE = spread(top_Bk, ids_Bk, n_experts)
    total_B1 = score_BE.sum(axis=1, keepdims=True)
    return jnp.where(total_B1 > 0, score_BE / jnp.where(total_B1 > 0, total_B1, 1), 1 / n_experts)


def spread(values: jax.Array, ids: jax.Array, n_experts: int) -> jax.Array:
    """[..., k] values at int[..., k] experts, each named once, as [..., E]: exact zeros elsewhere.

    No [..., k, E] is made: accelerators fuse a comparison with the sum over it, CPUs do not but scatter fast.
    """
    compared, scattered = (functools.partial(one, n_experts=n_experts) for one in (_compared, _scattered))
    return jax.lax.platform_dependent(values, ids, cpu=scattered, default=compared)


def _compared(values, ids, n_experts):
    experts = jax.lax.broadcasted_iota(ids.dtype, (*ids.shape, n_experts), ids.ndim)
    return jnp.sum(jnp.where(ids[..., None] == experts, values[..., None], 0), axis=-2)


def _scattered(values, ids, n_experts):
    def one(value_k, ids_k):
        # Told that no expert comes twice, XLA differentiates this by reading the values back.
        return jnp.zeros(n_experts, values.dtype).at[ids_k].set(value_k, mode="promise_in_bounds", unique_indices=True)

    return jnp.vectorize(one, signature="(k),(k)->(e)")(values, ids)


def check_choice(top_k: int, temperature: float = 1.0) -> None:
    """Raises InputError for settings of `top_k_softmax` that leave no expert, or order them the other way round."""
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")
    if not temperature > 0:
        raise InputError(f"temperature={temperature}: expected a positive number")


def check(router: Router, library: Library) -> None:
    """Raises InputError unless the router is one for this library: its experts, its sites, their layers and widths.

    Looks at `per_site` and `named` arrays, at the layer axis of the other arrays, and at `n_experts`.
    """
    kind, sizes = type(router).__name__, {"E": len(library), "L": next(iter(library.loras.values())).a.shape[0]}
    if getattr(router, "n_experts", len(library)) != len(library):
        raise InputError(f"the {kind} router is for {router.n_experts} experts; the library has {len(library)}")
    for field in dataclasses.fields(router):
        value = getattr(router, field.name)
        if field.metadata.get("whole"):
            _check_axes(kind, field.name, value, field.metadata["axes"], sizes)
        elif axes := field.metadata.get("axes"):
            for site, (a, b) in library.loras.items():
                own = sizes | {"I": a.shape[-1], "O": b.shape[-1]}
                _check_axes(kind, f"{field.name}, site {site}", value.get(site), axes, own)
        elif not field.metadata.get("static"):
            for leaf in jax.tree.leaves(value):
                _check_axes(kind, field.name, leaf, "L", sizes)


def _check_axes(kind, name, array, axes, sizes):
    if array is None:
        raise InputError(f"the {kind} router has no {name}; the library has experts there. Build a router for it")
    found = dict(zip(axes, array.shape, strict=False))
    if array.ndim < len(axes) or any(sizes.get(letter, size) != size for letter, size in found.items()):
        expected = ", ".join(f"{letter} = {sizes[letter]}" for letter in axes if letter in sizes)
        raise InputError(
            f"the {kind} router's {name} has shape {array.shape}; the library has {expected}. Build a router for it"
        )


def load_router(path: str | pathlib.Path) -> Router:
    """Reads what `Router.save` wrote. Raises InputError for a file that is none, or an unknown class.

    A file runs no code: the module of a class of one's own, which it names, is imported by the caller before.
    """
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a readable router file ({error})") from error
    known = {_kind(cls): cls for cls in _subclasses(Router)}
    name = metadata.get("router")
    if name not in known:
        module = str(name).rpartition(".")[0]
        how = f". Import {module} first, or name it {module}:{path} on the command line" if module else ""
        raise InputError(f"{path}: router {name!r}; expected one of {', '.join(sorted(known))}{how}")
    try:
        return known[name](**_unflatten(arrays), **json.loads(metadata["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its arrays and settings do not make a router {name!r} ({error})") from error


Layers = tuple[dict[str, LoRA], Router]
Adapt = Callable[[Layers, tuple[str, ...], jax.Array], dict[str, jax.Array]]


def bind(
    loras: dict[str, LoRA],
    scale_E: jax.Array,
    router: Router,
    context: Context = Context(),  # noqa: B008, an immutable tuple
    plan: Plan | None = None,
) -> tuple[Layers, Adapt]:
    """The two things the decoder takes: a pytree scanned beside its blocks, and the function it calls.

    The function gets one layer's slice of the pytree, the sites that share an input, and the input x_BTI;
    it returns {site: delta float32[B,T,O]} for the sites that have experts.
    """

    if router.mix not in get_args(Mix):
        raise InputError(f"mix={router.mix!r}: expected one of {', '.join(get_args(Mix))}")

    def adapt(layer, sites, x_BTI):
        layer_loras, layer_router = layer
        return {
            site: mixture(x_BTI, layer_loras[site], scale_E, layer_router(site, x_BTI, context), layer_router.mix, plan)
            for site in sites
            if site in layer_loras
        }

    return (loras, router), adapt


def hook(experts: tuple[dict[str, LoRA], jax.Array, Router] | None, context: Context) -> dict[str, Any]:
    """The decoder's keyword arguments for (loras, scale, router); none for the base model."""
    if experts is None:
        return {}
    adapters, adapt = bind(*experts, context)
    return {"adapters": adapters, "adapt": adapt}


def _kind(cls):
    """A router's class as its file names it: modjax's own by name alone, others with their module."""
    return cls.__name__ if cls.__module__.startswith("modjax.") else f"{cls.__module__}.{cls.__qualname__}"


def _subclasses(cls):
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _flatten(name, value):
    if not isinstance(value, dict):
        return {name: np.ascontiguousarray(value)}
    return {path: leaf for key, inner in value.items() for path, leaf in _flatten(f"{name}/{key}", inner).items()}


def _unflatten(arrays):
    fields = {}
    for path, array in arrays.items():
        *outer, last = path.split("/")
        inner = fields
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = jnp.asarray(array)
    return fields
