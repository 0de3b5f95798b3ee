"""Routers and transforms of libraries by name: functions of modjax, your own, and saved routers."""

import importlib
import inspect
import pathlib
import types
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from modjax import merge, routing
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.genknowsub import genknowsub
from modjax.routing.base import Router, load_router

MERGES = {name: getattr(merge, name) for name in merge.__all__ if inspect.isfunction(getattr(merge, name))}
TRANSFORMS = MERGES | {"genknowsub": genknowsub}


def check_transform(name: Any, known: Iterable[str], where: str) -> None:
    """Raises InputError unless the transform is one of these; `where` is the key that names it."""
    if name not in known:
        raise InputError(f"{where} = {name!r}; expected one of {', '.join(known)}")


def transformed(name: str, library: Library, options: Mapping[str, Any], general: Library | None = None) -> Library:
    """The library that comes of a transform: one expert of a merge, as many as before of "genknowsub".

    Args:
      options: its arguments beside libraries.
      general: the experts that "genknowsub" subtracts.

    Raises InputError for options that it does not have, that it lacks, or that cannot be.
    """
    libraries = (library,)
    if name == "genknowsub":
        if general is None:
            raise InputError("genknowsub: there are no general experts to subtract; expected a library of them")
        libraries = (library, general)
    return called(name, TRANSFORMS[name], *libraries, **options)


def routers() -> list[str]:
    """The functions of `modjax.routing` that make a router of a library: whoever adds one adds a name."""
    return [name for name in routing.__all__ if _takes_a_library(getattr(routing, name))]


def router(name: str, library: Library, options: Mapping[str, Any], given: Mapping[str, Callable[[], Any]]) -> Router:
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
        return load_router_of(_split(name)[1], name)
    function = _function(name)
    known = _options(function)
    asked = {key: value() for key, value in given.items() if key not in options and key in known}
    return called(f"router {name}", function, library, **options, **asked)


def load_router_of(path: str | pathlib.Path, name: str) -> Router:
    """The router in a file that `router(name, ...)` gave; where the name has a module, its classes are known then."""
    if module := _split(name)[0]:
        _imported(module)
    return load_router(path)


def of_experts_alone(name: str) -> Callable[[Library], Router] | None:
    """The function of `modjax.routing` with this name, where it asks for nothing but a library; else None."""
    if name not in routers():
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
    if name in routers():
        return getattr(routing, name)
    module, attribute = _split(name)
    if not module:
        raise InputError(
            f"router {name!r}; expected one of {', '.join(routers())}, a function of your own as module:function, or a "
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


def called(name: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """What the function gives. Raises InputError for options that it does not have, lacks, or has of another type.

    Args:
      name: what to call it in the error.
      given: its first arguments, which are no options.
    """
    signature = inspect.signature(function)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        known = list(signature.parameters)[len(given) :]
        raise InputError(f"{name}: {error}; its options are {', '.join(known) or 'none'}") from error
    for option, value in options.items():
        hint = _hint(function, option)
        if not _fits(value, hint):
            raise InputError(f"{name}: {option} = {value!r}; expected {getattr(hint, '__name__', hint)}")
    return function(*given, **options)


def _hint(function, option) -> Any:
    """The type that one argument is annotated with; Any where that cannot be told."""
    alone = types.SimpleNamespace(__annotations__={option: getattr(function, "__annotations__", {}).get(option, Any)})
    try:
        return get_type_hints(alone, getattr(function, "__globals__", {}))[option]
    except (NameError, SyntaxError, TypeError):  # imported for type checkers alone, or no type at all
        return Any


def _fits(value, hint) -> bool:
    """Whether a literal may stand where a plain type is asked for; other types are left to the function."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) in {type(choice) for choice in get_args(hint)}
    if hint is types.NoneType:
        return value is None
    if hint not in (bool, int, float, str):
        return True
    return isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))
