"""Methods as dictionaries: one language for configs, the lines of a leaderboard, and calls from Python.

    {"library": "mbc", "router": {"name": "arrow", "top_k": 4}, "note": "cluster experts"}

The parts of a method, in the order in which it is made:

    model       another base model, by its name in the leaderboard; can only be combined with "note"
    library     a library, by its name in the experiment or its folder; by default "library"; "" is the base model alone
    subtract    general experts whose mean is subtracted (GenKnowSub): {"library": ..., "form": ...}
    merge       a function of `modjax.merge` by name, and its options; the merged expert needs no router
    adapt       one expert per held-out task, from a few of its examples: options that differ from the experiment's
    router      a function of `modjax.routing` by name, your own as "module:function", or the file of a saved router
                relative to the library's folder or the working directory; with its options
    calibrate   number of validation prompts per training task, or a text file of prompts, to standardise scores on
    note        a few words for the table

Parts that are None or empty are left out.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from modjax import digest
from modjax.errors import InputError, suggestion
from modjax.eval.method import Method
from modjax.experts.library import Library
from modjax.files import plain
from modjax.merge.genknowsub import genknowsub
from modjax.parallel.distributed import from_first
from modjax.routing.base import Router
from modjax.routing.calibration import calibrate, neutral_prompts
from modjax.routing.oracle import oracle
from modjax.studies import catalogue, content
from modjax.studies.adaptation import adapted, check_options
from modjax.studies.catalogue import called, saved
from modjax.studies.experiment import DEFAULT, Experiment

# The types of each part, and how an error describes them.
PARTS = {
    "model": (str, "a name"),
    "library": (str, "a name or a folder"),
    "subtract": (dict, "options with a library"),
    "merge": (dict, "options with a name"),
    "adapt": (dict, "options"),
    "router": ((str, dict), "a name, or options with a name"),
    "calibrate": ((str, int), "a text file, or a number of prompts per task"),
    "note": (str, "text"),
}


def normalised(method: Mapping[str, Any], where: str = "method") -> dict[str, Any]:
    """The method as plain data, without parts and options that are None or empty, the router as options with a name.

    Raises InputError naming `where` for an unknown part, and a part of the wrong type.
    """
    found = {}
    for part, value in method.items():
        if part not in PARTS:
            raise InputError(f"{where}: unknown part {part!r}; {suggestion(part, PARTS)}")
        types, words = PARTS[part]
        if value is None:
            continue
        try:
            value = plain(value)
        except TypeError as error:
            raise InputError(f"{where}.{part} = {value!r:.80}; expected {words}, of plain values") from error
        if not isinstance(value, types) or isinstance(value, bool):
            raise InputError(f"{where}.{part} = {value!r}; expected {words}")
        if isinstance(value, dict):
            value = {key: option for key, option in value.items() if option is not None}
        if value not in ("", {}) or part in ("library", "adapt"):
            found[part] = value
    if "router" in found and isinstance(found["router"], str):
        found["router"] = {"name": found["router"]}
    for part in ("router", "merge"):
        if part in found and not isinstance(found[part].get("name"), str):
            raise InputError(f"{where}.{part} = {found[part]!r}; expected a name among its options")
    if "subtract" in found and not found["subtract"].get("library"):
        del found["subtract"]
    return found


def libraries_of(method: Mapping[str, Any]) -> list[str]:
    """The libraries of a normalised method, by name or folder; none for the base model and for another model."""
    own = "" if "model" in method else method.get("library", DEFAULT)
    general = method["subtract"]["library"] if own and "subtract" in method else ""
    return [name for name in (own, general) if name]


def made_of(method: Mapping[str, Any], experiment: Experiment) -> dict[str, Any]:
    """The inputs of a normalised method's results besides `Experiment.made_of`: its parts, and digests of files.

    All processes must call it alike, and get what the first has found.
    """
    folders = {name: experiment.folder_of(name) for name in libraries_of(method)}
    loaded = {name: experiment.library(name).fingerprint for name, folder in folders.items() if folder is None}

    def found():
        libraries = {name: content.of_library(folder) for name, folder in folders.items() if folder}
        return {
            "line": method,
            "libraries": loaded | libraries,
            "files": {str(file): digest.of_file(file) for file in _files(method, experiment)},
        }

    return from_first(lambda: plain(found()))


def _files(method, experiment) -> list[pathlib.Path]:
    """The files that a method reads besides its libraries: a router's file or code, and a text for calibration."""
    names, files = libraries_of(method), [pathlib.Path(str(method.get("calibrate", "")))]
    if "router" in method and names:
        name = method["router"]["name"]
        files += [saved(name, experiment.folder_of(names[0])), catalogue.code(name)]
    return [file for file in files if file and file.is_file()]


def check(method: Mapping[str, Any], experiment: Experiment, where: str = "method") -> None:
    """Raises InputError naming `where` for an unknown library, merge or adaptation; nothing is read or computed."""
    for name in libraries_of(method):
        try:
            experiment.check_library(name)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    if "merge" in method and method["merge"]["name"] not in catalogue.MERGES:
        name = method["merge"]["name"]
        raise InputError(f"{where}.merge.name: unknown merge {name!r}; {suggestion(name, catalogue.MERGES)}")
    if "adapt" in method:
        check_options({**experiment.adapt, **method["adapt"]}, f"{where}.adapt", experiment.adapt)


def make(name: str, method: Mapping[str, Any], experiment: Experiment, folder: pathlib.Path | None = None) -> Method:
    """The method with its arrays.

    Args:
      method: normalised; see `normalised` and `check`.
      folder: for the work of adaptation and of routers that train; by default the experiment's workdir.

    Raises InputError for parts that do not fit each other.
    """
    library = library_of(method, experiment, folder)
    router = None if library is None else router_of(method, library, experiment, folder)
    jax.block_until_ready((library and library.loras, router))
    return Method(name, library, router, method.get("note", ""))


def library_of(method: Mapping[str, Any], experiment: Experiment, folder: pathlib.Path | None = None) -> Library | None:
    """The method's library after subtraction, merge and adaptation; None for the base model alone."""
    folder, names = folder or experiment.workdir, libraries_of(method)
    if not names:
        return adapted(experiment, None, method["adapt"], folder) if "adapt" in method else None
    library = experiment.library(names[0])
    if "subtract" in method:
        options = _without(method["subtract"], "library")
        library = called("subtract", genknowsub, library, experiment.library(names[1]), **options)
    if "merge" in method:
        name = method["merge"]["name"]
        library = called(f"merge {name}", catalogue.MERGES[name], library, **_without(method["merge"], "name"))
    if "adapt" in method:
        library = adapted(experiment, library, method["adapt"], folder)
    return library


def router_of(
    method: Mapping[str, Any], library: Library, experiment: Experiment, folder: pathlib.Path | None = None
) -> Router | None:
    """The method's router for its library: the oracle of adapted experts, none for a merged one unless it names one."""
    if "router" not in method:
        return oracle(library) if "adapt" in method else None
    folder, system = folder or experiment.workdir, experiment.sample.system
    given = {
        "model": lambda: experiment.model,
        "tasks": lambda: experiment.tasks.training,
        "system": lambda: system,
        "workdir": lambda: folder and folder / "router",
    }
    options = method["router"]
    root = experiment.folder_of(libraries_of(method)[0])
    router = catalogue.router(options["name"], library, _without(options, "name"), given, root)
    if "calibrate" in method:
        prompts = neutral_prompts(experiment.tasks.training, method["calibrate"])
        router = calibrate(router, experiment.model, prompts, system)
    return router


def _without(options: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != key}
