"""Routers by name: the functions of `modjax.routing`, anyone's own, and saved ones."""

import importlib
import inspect
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from modjax import routing
from modjax.cli.arguments import called
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing.base import Router, load_router


def names() -> list[str]:
    """The functions of `modjax.routing` that make a router of a library: whoever adds one adds a name."""
    return [name for name in routing.__all__ if _takes_a_library(getattr(routing, name))]


def make(name: str, library: Library, options: Mapping[str, Any], given: Mapping[str, Callable[[], Any]]) -> Router:
    """The router that a name stands for.

    Args:
      name: a function of `modjax.routing`; "module:function", one of one's own, whose first argument is the library;
        the file of a saved router; or "module:file" where its class is one's own.
      options: its other arguments.
      given: functions that give what it may ask for beside them, called where it does.

    Raises InputError for a name that stands for nothing, and for options that the function does not have.
    """
    if _is_saved(name):
        if options:
            raise InputError(f"router {name}: a saved one has settings of its own; expected no {', '.join(options)}")
        return load(_split(name)[1], name)
    function = _function(name)
    known = _options(function)
    asked = {key: value() for key, value in given.items() if key not in options and key in known}
    return called(f"router {name}", function, library, **options, **asked)


def load(path: str | pathlib.Path, name: str) -> Router:
    """The router in a file that `make(name, ...)` gave; where the name has a module, its classes are known then."""
    if module := _split(name)[0]:
        _imported(module)
    return load_router(path)


def neutral(tasks: Tasks, of: str | int, where: str) -> list[str]:
    """What scores can be standardised on: the lines of a text file, or so many validation prompts of each task.

    Raises InputError that names `where` if `of` is neither.
    """
    if pathlib.Path(str(of)).is_file():
        return pathlib.Path(str(of)).read_text(encoding="utf-8").splitlines()
    if not str(of).isdigit():
        raise InputError(f"{where} = {of!r}; expected a text file, or a number of prompts a task")
    return [one.source for task in tasks.values() for one in task.split("validation")[: int(of)]]


def of_experts_alone(name: str) -> Callable[[Library], Router] | None:
    """The function of `modjax.routing` with this name, where it asks for nothing but a library; else None."""
    if name not in names():
        return None
    parameters = list(inspect.signature(getattr(routing, name)).parameters.values())[1:]
    return None if any(one.default is inspect.Parameter.empty for one in parameters) else getattr(routing, name)


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the router of this name has; a saved one has its own already."""
    if _is_saved(name):
        return {}
    known = _options(_function(name))
    return {key: value for key, value in options.items() if key in known}


def _is_saved(name) -> bool:
    return name.endswith(".safetensors") or pathlib.Path(_split(name)[1]).is_file()


def _split(name) -> tuple[str, str]:
    """The module and what it has, of "module:function" and "module:file"; other names have no module."""
    module, _, rest = name.partition(":")
    return (module, rest) if rest and not pathlib.Path(name).is_file() else ("", name)


def _function(name) -> Callable[..., Router]:
    if name in names():
        return getattr(routing, name)
    module, attribute = _split(name)
    if not module:
        raise InputError(
            f"router {name!r}; expected one of {', '.join(names())}, a function of your own as module:function, or a "
            "file that Router.save wrote"
        )
    function = getattr(_imported(module), attribute, None)
    if not callable(function):
        raise InputError(f"router {name!r}: {module} has no such function; expected module:function")
    return function


def _imported(module) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"module {module!r} of a router: {error}; expected one that can be imported") from error


def _takes_a_library(value) -> bool:
    return inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), None) == "library"


def _options(function) -> list[str]:
    return list(inspect.signature(function).parameters)[1:]
