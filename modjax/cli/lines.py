"""The lines of a leaderboard: what a config says of a method, checked, and the method made of it."""

import inspect
import pathlib
from collections.abc import Callable, Mapping

import jax

from modjax.cli import routers
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.evaluate import Method
from modjax.experts import merge
from modjax.experts.genknowsub import genknowsub
from modjax.experts.library import Library
from modjax.model import Model
from modjax.routing.calibration import calibrate

PARTS = ("library", "subtract", "merge", "router", "calibrate", "note")  # of a line, in the order of its making
MERGES = ("uniform", "ties", "dare", "magnitude_prune", "svd", "concatenate")


def libraries_of(line: Mapping) -> list[str]:
    """The libraries that a method is made of, by name; none for the base model."""
    own = line.get("library", "library")
    return [used for used in (own, line.get("subtract", {}).get("library")) if used]


def check(name: str, line: Mapping, libraries: Mapping[str, str]) -> None:
    """Raises InputError for a part, a library or a merge that there is not."""
    where = f"config.leaderboard.methods.{name}"
    if unknown := [part for part in line if part not in PARTS]:
        raise InputError(f"{where} has {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    for used in libraries_of(line):
        if used not in libraries:
            raise InputError(f"{where}: no library {used!r}; expected one of {', '.join(libraries)}")
    if "merge" in line and line["merge"].get("name") not in MERGES:
        raise InputError(f"{where}.merge.name = {line['merge'].get('name')!r}; expected one of {', '.join(MERGES)}")


def make(
    name: str,
    line: Mapping,
    paths: Mapping[str, str],
    library_of: Callable[[str], Library],
    model: Model,
    tasks: Tasks,
    system: str | None,
) -> Method:
    """The method of a line, its arrays made.

    Args:
      paths: the folder of each library.
      library_of: a library by its name, read once.
      tasks: in distribution: what routers that need data learn from, and are calibrated on.
      system: the system message of prompts that routers read.

    Raises InputError for what cannot be made.
    """
    note = line.get("note", "")
    if not libraries_of(line):
        return Method(name, note=note)
    library, router = library_of(libraries_of(line)[0]), None
    if "subtract" in line:
        general, options = library_of(line["subtract"]["library"]), _without(line["subtract"], "library")
        library = _called(genknowsub, library, general, **options)
    if "merge" in line:
        library = _called(getattr(merge, line["merge"]["name"]), library, **_without(line["merge"], "name"))
    if "router" in line:
        given = {"model": lambda: model, "tasks": lambda: tasks, "system": lambda: system}
        options = {"name": line["router"]} if isinstance(line["router"], str) else line["router"]
        made_by = _name(options["name"], pathlib.Path(paths[libraries_of(line)[0]]))
        router = routers.make(made_by, library, _without(options, "name"), given)
    if "calibrate" in line:
        if not hasattr(router, "raw"):
            raise InputError("calibrate: expected a router with raw scores to standardise, such as seqr or pooled")
        prompts = [one.source for task in tasks.values() for one in task.split("validation")[: line["calibrate"]]]
        router = calibrate(router, model, prompts, system)
    jax.block_until_ready((library.loras, router))
    return Method(name, library, router, note)


def _name(router: str, folder: pathlib.Path) -> str:
    """A saved router's file is named as it lies from the library's folder."""
    return str(folder / router) if router.endswith(".safetensors") else router


def _without(options: Mapping, key: str) -> dict:
    return {name: value for name, value in options.items() if name != key}


def _called(function, *arguments, **options):
    """function(...), with InputError for options that it does not have."""
    known = inspect.signature(function).parameters
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"{function.__name__} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return function(*arguments, **options)
