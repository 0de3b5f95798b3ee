"""What configs name, made real: the model, the tasks, a library, a router."""

import pathlib

import jax
import ml_collections

from modjax import data
from modjax.cli import arguments
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.model import Model, load
from modjax.parallel.mesh import make_mesh
from modjax.routing import calibration
from modjax.routing.base import Router
from modjax.routing.calibration import calibrate
from modjax.studies import catalogue


def model(config: ml_collections.ConfigDict, name: str | None = None) -> Model:
    """The base model, or the one called `name`, on the config's mesh where there is more than one device."""
    mesh = make_mesh(**config.mesh) if jax.device_count() > 1 else None
    return load(name or config.model, quantize=config.quantize, mesh=mesh)


def tasks(config: ml_collections.ConfigDict) -> Tasks:
    """The collection, or the part of it that `config.only` names."""
    return data.load(config.tasks, only=tuple(config.only) or None)


def library(config: ml_collections.ConfigDict) -> Library:
    if not config.library:
        raise InputError("config.library is empty; expected the folder of a library, as WORKDIR/library of a train job")
    return Library.load(config.library)


def router(
    config: ml_collections.ConfigDict,
    experts: Library,
    base: Model,
    name: str | None = None,
    workdir: pathlib.Path | None = None,
) -> Router:
    """The router called `name`, by default what `config.router` says.

    Keys that are None are left to the router, and keys that all routers share to those that have them; `options` must
    be the router's own, and are left out where another one is asked for. One that learns from data does so from the
    config's training tasks, and may keep its work in `workdir`; with `calibrate` its scores are standardised on so many
    of their validation prompts, or on the lines of a file.
    """
    shared = {key: value for key, value in config.router.to_dict().items() if value is not None}
    named, calibrated, text = shared.pop("name"), shared.pop("calibrate", ""), shared.pop("options", "")
    options = arguments.parsed(text, "config.router.options") if name in (None, named) else {}
    name, system = name or named, config.train.get("system")
    given = {
        "model": lambda: base,
        "tasks": lambda: tasks(config).training,
        "system": lambda: system,
        "workdir": lambda: workdir,
    }
    made = catalogue.router(name, experts, {**catalogue.options_of(name, shared), **options}, given)
    if not calibrated:
        return made
    neutral = calibration.neutral(tasks(config).training, calibrated, "config.router.calibrate")
    return calibrate(made, base, neutral, system)
