"""What configs name, made real: the model, the tasks, a library, a router."""

import inspect

import jax
import ml_collections

from modjax import data, routing
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.model import Model, load
from modjax.parallel.mesh import make_mesh
from modjax.routing.base import Router

ROUTERS = {
    "arrow": routing.arrow,
    "spectr": routing.spectr,
    "seqr": routing.seqr,
    "lag": routing.lag,
    "logo": routing.logo,
    "uniform": routing.uniform,
    "oracle": routing.oracle,
}


def model(config: ml_collections.ConfigDict) -> Model:
    """The base model, on the config's mesh where there is more than one device."""
    mesh = make_mesh(**config.mesh) if jax.device_count() > 1 else None
    return load(config.model, quantize=config.quantize, mesh=mesh)


def tasks(config: ml_collections.ConfigDict) -> Tasks:
    """The collection, or the part of it that `config.only` names."""
    return data.load(config.tasks, only=tuple(config.only) or None)


def library(config: ml_collections.ConfigDict) -> Library:
    if not config.library:
        raise InputError("config.library is empty; expected the folder of a library, as WORKDIR/library of a train job")
    return Library.load(config.library)


def router(config: ml_collections.ConfigDict, experts: Library, name: str | None = None) -> Router:
    """The router called `name`, by default what `config.router.name` says, with those of the other keys that it has."""
    options = config.router.to_dict()
    named = options.pop("name")
    name = name or named
    if name not in ROUTERS:
        raise InputError(f"config.router.name = {name!r}; expected one of {', '.join(ROUTERS)}")
    known = inspect.signature(ROUTERS[name]).parameters
    return ROUTERS[name](experts, **{key: value for key, value in options.items() if key in known})
