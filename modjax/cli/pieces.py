"""What configs name, made real: the model, the tasks, a library, a router."""

import pathlib

import jax
import ml_collections

from modjax import data
from modjax.cli import routers
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.model import Model, load
from modjax.parallel.mesh import make_mesh
from modjax.routing.base import Router
from modjax.routing.calibration import calibrate


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


def router(config: ml_collections.ConfigDict, experts: Library, base: Model, name: str | None = None) -> Router:
    """The router called `name`, by default what `config.router.name` says, with those of the other keys that it has.

    Keys that are None are left to the router. One that learns from data does so from the config's training tasks; with
    `calibrate` its scores are standardised on so many of their validation prompts, or on the lines of a file.
    """
    options = {key: value for key, value in config.router.to_dict().items() if value is not None}
    named, calibrated = options.pop("name"), options.pop("calibrate", "")
    name, system = name or named, config.train.get("system")
    given = {"model": lambda: base, "tasks": lambda: tasks(config).training, "system": lambda: system}
    made = routers.make(name, experts, routers.options_of(name, options), given)
    return calibrate(made, base, _neutral(calibrated, config), system) if calibrated else made


def _neutral(where, config) -> list[str]:
    """What scores are standardised on: the lines of a file, or the first validation prompts of each training task."""
    if pathlib.Path(where).is_file():
        return pathlib.Path(where).read_text(encoding="utf-8").splitlines()
    if not where.isdigit():
        raise InputError(f"config.router.calibrate = {where!r}; expected a text file, or a number of prompts a task")
    return [one.source for task in tasks(config).training.values() for one in task.split("validation")[: int(where)]]
