"""The objects that a config names: the model, the tasks, a library, a method and its experiment."""

import json
from typing import Any

import jax
from ml_collections import ConfigDict

from modjax import data
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.sample import Sample
from modjax.experts.library import Library
from modjax.model import Model, load
from modjax.parallel.mesh import make_mesh
from modjax.studies import methods
from modjax.studies.experiment import DEFAULT, Experiment


def model(config: ConfigDict, name: str | None = None) -> Model:
    """The base model, or the one called `name`, on the config's mesh if there is more than one device."""
    mesh = make_mesh(**config.mesh) if jax.device_count() > 1 else None
    return load(name or config.model, quantize=config.quantize, mesh=mesh)


def tasks(config: ConfigDict) -> Tasks:
    """The collection, or the part of it that `config.only` names."""
    return data.load(source(config), only=tuple(config.only) or None)


def source(config: ConfigDict) -> str | dict[str, Any]:
    """Where the tasks are found: a name, a path, an id, or the settings of a data set."""
    return plain(config.tasks) if isinstance(config.tasks, ConfigDict) else config.tasks


def library(config: ConfigDict) -> Library:
    """The library of `config.library`. Raises InputError if it is empty."""
    if not config.library:
        raise InputError("config.library is empty; expected the folder of a library, as WORKDIR/library of a train job")
    return Library.load(config.library)


def method(config: ConfigDict) -> dict[str, Any]:
    """The normalised dictionary of `config.method`; the base model if neither it nor the config names a library."""
    found = methods.normalised(plain(config.method), "config.method")
    return found if config.library or "library" in found else {"library": ""}


def experiment(config: ConfigDict, workdir: str | None = None) -> Experiment:
    """The experiment that the config's method belongs to; its parts are loaded when they are needed."""
    return Experiment(
        lambda: model(config),
        lambda: tasks(config),
        {DEFAULT: config.library},
        Sample.of(config.evaluate),
        config.evaluate.max_new_tokens,
        config.train.to_dict(),
        config.adapt.to_dict() if "adapt" in config else {},
        workdir,
    )


def plain(config: ConfigDict) -> Any:
    """The config as plain data: dicts, lists, numbers and strings."""
    return json.loads(config.to_json())
