"""The router protocol, the hook that adds routed experts to the decoder, and the file format of routers."""

import dataclasses
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from modjax import arguments
from modjax.data.inputs import Reader
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.files import check_file, os_errors, plain, replace
from modjax.models.decoder import Decoder
from modjax.ops.lora import Loras, Mix, Plan, mixture
from modjax.ops.top_k import Weights


@runtime_checkable
class BaseModel(Reader, Protocol):
    """The interface of a model that routers use; `modjax.Model` has it."""

    @property
    def params(self) -> Decoder: ...

    def check(self, library: Library) -> None:
        """Raises InputError unless the library's experts are for this model."""


class Context(NamedTuple):
    """Information on a batch that a router may use in addition to the activations."""

    choice_B: jax.Array | None = None  # int32[B], index of each example's choice in the router's `choices`; -1: none


def static(default=dataclasses.MISSING):
    """A field of a router that is a setting, not an array: jit compiles again when it changes."""
    return dataclasses.field(default=default, metadata={"static": True})


def per_site(axes: str):
    """A field of a router {site: array}. axes: one letter per axis, such as "LEI", for `check`."""
    return dataclasses.field(metadata={"axes": axes})


def named(axes: str):
    """A field of a router with one array for all sites. axes: one letter per axis, such as "LBE", for `check`."""
    return dataclasses.field(metadata={"axes": axes, "whole": True})


class Router:
    """A pytree that weighs experts: `weights = router(site, x_BTI, context)`, inside one block.

    Subclasses become registered dataclasses automatically, and `load_router` finds them by name. Every array has the
    layer axis first, also in nested dicts; inside a block the router holds only that layer's slice. `check` compares
    fields with a library: declare arrays per site with `per_site(axes)` and others with `named(axes)`; declare settings
    with `static()`, and call the number of experts `n_experts` if it is one.

    Weights are float32 [E], [B,E] or [B,T,E], or those of k experts, TopK of [B,k] or [B,T,k], as `top_k_softmax` gives
    them; with mix="heads" float32[B,H,E], for H blocks of I and of O.
    """

    mix: Mix = "parameters"

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False)(cls))

    def __call__(self, site: str, x_BTI: jax.Array, context: Context) -> Weights:
        raise NotImplementedError

    def prepared(self) -> Callable[[str, jax.Array, Context], Weights]:
        """A pytree in place of this router, with the same `mix`: what is the same for every token is computed once."""
        return self

    def choices(self, library: Library) -> tuple[str, ...]:
        """The names that `context.choice_B` is an index of; () for a router that does not use it."""
        return ()

    def choice_of(self, task: str, library: Library) -> int | None:
        """The `context.choice_B` of examples of a task; None if the router has no choice for the task."""
        return None

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file, atomically: the arrays, and as metadata the class and its settings.

        Creates missing folders. Raises InputError if the file cannot be written.
        """
        path = arguments.path("path", path)
        arrays, settings = {}, {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("static"):
                settings[field.name] = value
            elif value is not None:
                arrays |= _flatten(field.name, value)
        metadata = {"router": _kind(type(self)), "settings": json.dumps(plain(settings))}
        with os_errors(path, "written"):
            check_file(path)
            replace(path, safetensors.numpy.save(arrays, metadata))


def check(router: Router, library: Library) -> None:
    """Raises InputError unless the router fits this library: number of experts, sites, layers and widths.

    Compares `per_site` and `named` arrays, the layer axis of all other arrays, and `n_experts`.
    """
    kind = type(arguments.instance("router", router, Router)).__name__
    sizes = {"E": len(arguments.instance("library", library, Library)), "L": library.layers}
    if getattr(router, "n_experts", len(library)) != len(library):
        raise InputError(f"the {kind} router is for {router.n_experts} experts; the library has {len(library)}")
    for field in dataclasses.fields(router):
        value = getattr(router, field.name)
        if field.metadata.get("whole"):
            _check_axes(kind, field.name, value, field.metadata["axes"], sizes)
        elif axes := field.metadata.get("axes"):
            for site, lora in library.loras.items():
                own = sizes | {"I": lora.a.shape[-1], "O": lora.b.shape[-1]}
                _check_axes(kind, f"{field.name}, site {site}", value.get(site), axes, own)
        elif not field.metadata.get("static"):
            for leaf in jax.tree.leaves(value):
                _check_axes(kind, field.name, leaf, "L", sizes)


def _check_axes(kind, name, array, axes, sizes):
    if array is None:
        raise InputError(f"the {kind} router has no {name}, which the library has; build a router for this library")
    found = dict(zip(axes, array.shape, strict=False))
    if array.ndim < len(axes) or any(sizes.get(letter, size) != size for letter, size in found.items()):
        expected = ", ".join(f"{letter} = {sizes[letter]}" for letter in axes if letter in sizes)
        raise InputError(
            f"the {kind} router's {name} has shape {array.shape}; the library has {expected}; build a router for this "
            "library"
        )


def load_router(path: str | os.PathLike) -> Router:
    """Reads a file that `Router.save` wrote. Raises InputError for any other file, and for an unknown class.

    Reading runs no code of the file. For a router class of your own, import its module first.
    """
    path = arguments.path("path", path)
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: is not a readable router file ({error})") from error
    known = {_kind(cls): cls for cls in _subclasses(Router) if not cls.__name__.startswith("_")}
    name = metadata.get("router")
    if name not in known:
        module = str(name).rpartition(".")[0]
        how = f". Import {module} first, or name it {module}:{path} on the command line" if module else ""
        raise InputError(f"{path}: router {name!r}; expected one of {', '.join(sorted(known))}{how}")
    try:
        return known[name](**_unflatten(arrays), **json.loads(metadata["settings"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its arrays and settings do not make a router {name!r} ({error})") from error


class Bound(NamedTuple):
    """The arrays of a library and a router that fits it, as one argument of jitted functions; see `Model.bind`.

    For a paged library `loras` is what the device holds of it, until `settle` brings in the experts of a batch.
    """

    loras: Loras
    router: Router


class Layer(NamedTuple):
    """What `hook` passes to each block."""

    router: Callable[[str, jax.Array, Context], Weights]  # prepared, with this layer's slice of its arrays
    index: jax.Array  # int32


def hook(
    bound: Bound | None,
    context: Context = Context(),  # noqa: B008, an immutable tuple
    plan: Plan | None = None,
) -> dict[str, Any]:
    """The decoder's keyword arguments that add the routed experts; {} for the base model.

    "adapters" is a pytree that is scanned together with the decoder's blocks. "adapt" is called in each block with one
    layer's slice of it, a `Layer`, the sites that share an input, and the input x_BTI; it returns
    {site: delta float32[B,T,O]} for the sites with experts. `plan` is passed to `mixture`. The experts' factors are not
    scanned: a scan copies each layer's slice, and few tokens read only a few rows of it.
    """
    if bound is None:
        return {}
    arguments.choice("mix", bound.router.mix, get_args(Mix))

    loras, router = bound

    def adapt(layer, sites, x_BTI):
        def delta(site):
            weights = layer.router(site, x_BTI, context)
            return mixture(x_BTI, loras[site], weights, router.mix, plan, layer.index)

        return {site: delta(site) for site in sites if site in loras}

    n_layers = next(iter(loras.values())).b.shape[0]
    return {"adapters": Layer(router.prepared(), jnp.arange(n_layers)), "adapt": adapt}


def checked_mix(mix: Mix) -> Mix:
    """The way to combine experts by one weight each. Raises InputError for another."""
    return arguments.choice("mix", mix, ("parameters", "outputs"))


def _kind(cls):
    """The name of a router class in files: without module for the classes of modjax, with it for others."""
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
