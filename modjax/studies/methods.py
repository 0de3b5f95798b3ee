"""The lines of a leaderboard: what a config says of a method, checked, and the method made of it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.method import Method
from modjax.experts.library import Library
from modjax.model import Model
from modjax.routing import calibration
from modjax.routing.calibration import calibrate
from modjax.routing.oracle import oracle
from modjax.studies import adaptation, catalogue

# Of a line, in the order of its making: what each may be, and how that is said.
PARTS = {
    "model": (str, "a name"),
    "library": (str, "a name"),
    "subtract": (dict, "options"),
    "merge": (dict, "options"),
    "adapt": (dict, "options"),
    "router": ((str, dict), "a name, or options with a name"),
    "calibrate": ((str, int), "a text file, or a number of prompts a task"),
    "note": (str, "text"),
}


@dataclasses.dataclass(frozen=True)
class Stock:
    """What methods are made of.

    Attributes:
      paths: the folder of each library.
      library: a library by its name, read once.
      tasks: in distribution: what routers that need data learn from, and are calibrated on.
      system: the system message of prompts that routers read.
      adaptation: the options of adaptation that lines need not give.
      adapted: an expert of each held-out task, by options and from a library.
    """

    paths: Mapping[str, str]
    library: Callable[[str], Library]
    model: Model
    tasks: Tasks
    system: str | None
    adaptation: Mapping[str, Any]
    adapted: Callable[[Mapping[str, Any], Library], Library]


def libraries_of(line: Mapping) -> list[str]:
    """The libraries that a method is made of, by name; none for the base model and for another one."""
    own = "" if "model" in line else line.get("library", "library")
    return [used for used in (own, line.get("subtract", {}).get("library")) if used]


def check(name: str, line: Mapping, libraries: Mapping[str, str], models: Mapping[str, str], adapt: Mapping) -> None:
    """Raises InputError for a part, a library, a model, a merge or an adaptation that there is not.

    Args:
      adapt: the options of adaptation that a line need not give.
    """
    where = f"config.leaderboard.methods.{name}"
    if unknown := [part for part in line if part not in PARTS]:
        raise InputError(f"{where} has {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    for part, value in line.items():
        types, words = PARTS[part]
        if not isinstance(value, types) or isinstance(value, bool):
            raise InputError(f"{where}.{part} = {value!r}; expected {words}")
    if isinstance(line.get("router"), dict) and not isinstance(line["router"].get("name"), str):
        raise InputError(f"{where}.router = {line['router']!r}; expected a name among its options")
    for used in libraries_of(line):
        if used not in libraries:
            raise InputError(f"{where}: no library {used!r}; expected one of {', '.join(libraries)}")
    if "model" in line and (line["model"] not in models or set(line) - {"model", "note"}):
        raise InputError(f"{where}: a model stands alone, and is one of {', '.join(models) or 'none'}")
    if "merge" in line:
        catalogue.check_transform(line["merge"].get("name"), catalogue.MERGES, f"{where}.merge.name")
    if "adapt" in line:
        if unknown := [key for key in line["adapt"] if key not in adapt]:
            raise InputError(f"{where}.adapt has {', '.join(unknown)}; expected some of {', '.join(adapt)}")
        adaptation.check({**adapt, **line["adapt"]}, f"{where}.adapt")


def make(name: str, line: Mapping, stock: Stock) -> Method:
    """The method of a line, its arrays made. Raises InputError for what cannot be made."""
    note = line.get("note", "")
    if not libraries_of(line):
        return Method(name, note=note)
    library, router = stock.library(libraries_of(line)[0]), None
    if "subtract" in line:
        options = _without(line["subtract"], "library")
        library = catalogue.transformed("genknowsub", library, options, stock.library(line["subtract"]["library"]))
    if "merge" in line:
        library = catalogue.transformed(line["merge"]["name"], library, _without(line["merge"], "name"))
    if "adapt" in line:
        library = stock.adapted({**stock.adaptation, **line["adapt"]}, library)
        router = oracle(library)
    if "router" in line:
        router = _router(line, library, stock)
    if "calibrate" in line:
        neutral = calibration.neutral(stock.tasks, line["calibrate"], f"config.leaderboard.methods.{name}.calibrate")
        router = calibrate(router, stock.model, neutral, stock.system)
    jax.block_until_ready((library.loras, router))
    return Method(name, library, router, note)


def _router(line, library, stock):
    options = {"name": line["router"]} if isinstance(line["router"], str) else line["router"]
    given = {"model": lambda: stock.model, "tasks": lambda: stock.tasks, "system": lambda: stock.system}
    name = options["name"]
    if name.endswith(".safetensors"):  # it is named as it lies from the library's folder
        name = str(pathlib.Path(stock.paths[libraries_of(line)[0]]) / name)
    return catalogue.router(name, library, _without(options, "name"), given)


def _without(options: Mapping, key: str) -> dict:
    return {name: value for name, value in options.items() if name != key}
