"""Routers and merges by name: the functions of modjax, your own routers, and saved ones."""

import importlib
import inspect
import pathlib
import types
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, Union, Unpack, get_args, get_origin, get_type_hints

from modjax import merge, routing
from modjax.errors import InputError, suggestion
from modjax.experts.library import Library
from modjax.routing.base import Router, load_router

MERGES = {
    name: getattr(merge, name)
    for name in ("uniform", "weighted", "concatenate", "svd", "ties", "dare", "magnitude_prune")
}


def routers() -> list[str]:
    """The functions of `modjax.routing` that make a router of a library; a new router file adds its name by itself."""
    return [name for name in routing.__all__ if _takes_a_library(getattr(routing, name))]


def router(
    name: str,
    library: Library,
    options: Mapping[str, Any],
    given: Mapping[str, Callable[[], Any]],
    root: pathlib.Path | None = None,
) -> Router:
    """The router of a name.

    Args:
      name: a function of `modjax.routing`; "module:function", your own, whose first argument is the library; the file
        of a saved router; or "module:file" if its class is your own.
      options: the function's other arguments.
      given: {argument: function that returns it}, called for the arguments that the router's function has and `options`
        lacks, such as the model.
      root: a folder that relative files of saved routers are looked up in first.

    Raises InputError for an unknown name, and for options that the function does not have.
    """
    file = saved(name, root)
    if file:
        if options:
            raise InputError(f"router {name}: a saved router has its own settings; expected no {', '.join(options)}")
        return load(file, name)
    function = _function(name)
    known = _parameters(function)
    asked = {key: value() for key, value in given.items() if key not in options and key in known}
    return called(f"router {name}", function, library, **options, **asked)


def load(path: str | pathlib.Path, name: str) -> Router:
    """The router in a file; `name` is the name it was made by, whose module is imported first if it has one."""
    if module := _split(name)[0]:
        _imported(module)
    return load_router(path)


def of_experts_alone(name: str) -> Callable[[Library], Router] | None:
    """The function of `modjax.routing` with this name if it needs nothing but a library, else None."""
    if name not in routers():
        return None
    parameters = list(inspect.signature(getattr(routing, name)).parameters.values())[1:]
    needed = any(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters)
    return None if needed else getattr(routing, name)


def called(name: str, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """Calls a function with options from a config.

    Args:
      name: the function's name in errors.
      given: its first arguments, which are not options.

    Raises InputError for options that it does not have, that are missing, or that have another type.
    """
    known = dict(list(_parameters(function).items())[len(given) :])
    for option, value in options.items():
        if option not in known:
            raise InputError(f"{name}: unknown option {option!r}; {suggestion(option, known)}")
        if not _fits(value, known[option]):
            hint = known[option]
            raise InputError(f"{name}: {option} = {value!r}; expected {getattr(hint, '__name__', hint)}")
    try:
        inspect.signature(function).bind(*given, **options)
    except TypeError as error:
        raise InputError(f"{name}: {error}; its options are {_listed(known)}") from error
    return function(*given, **options)


def _listed(names) -> str:
    return ", ".join(names) or "none"


def _parameters(function) -> dict[str, Any]:
    """{parameter: its type}, with the fields of `**options: Unpack[T]` in place of `options`; Any for unknown types."""
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        hint = _hint(function, name)
        if parameter.kind is parameter.VAR_KEYWORD and get_origin(hint) is Unpack:
            found |= get_type_hints(get_args(hint)[0])
        else:
            found[name] = hint
    return found


def _hint(function, name) -> Any:
    """The type of one parameter; Any if its annotation cannot be resolved."""
    alone = types.SimpleNamespace(__annotations__={name: getattr(function, "__annotations__", {}).get(name, Any)})
    try:
        return get_type_hints(alone, getattr(function, "__globals__", {}))[name]
    except (NameError, SyntaxError, TypeError):  # imported for type checkers alone, or not a type
        return Any


def _fits(value, hint) -> bool:
    """Whether a literal fits a plain type; other types are left to the function."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return type(value) in {type(choice) for choice in get_args(hint)}
    if hint is types.NoneType:
        return value is None
    if hint not in (bool, int, float, str):
        return True
    return isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))


def saved(name: str, root: pathlib.Path | None = None) -> pathlib.Path | None:
    """The file of a saved router; None if the name is not that of a file."""
    path = pathlib.Path(_split(name)[1])
    if root is not None and (root / path).is_file():
        return root / path
    return path if path.suffix == ".safetensors" or path.is_file() else None


def code(name: str) -> pathlib.Path | None:
    """The file with the code of a router of your own, "module:function" or "module:file"; None for other names."""
    module = _split(name)[0]
    found = getattr(_imported(module), "__file__", None) if module else None
    return found and pathlib.Path(found)


def _split(name) -> tuple[str, str]:
    """(module, rest) of "module:function" and "module:file"; other names have no module."""
    module, _, rest = name.partition(":")
    return (module, rest) if rest and not pathlib.Path(name).is_file() else ("", name)


def _function(name) -> Callable[..., Router]:
    if name in routers():
        return getattr(routing, name)
    module, attribute = _split(name)
    if not module:
        raise InputError(
            f"unknown router {name!r}; {suggestion(name, routers())} Or your own function as module:function, or a "
            "file that Router.save wrote"
        )
    function = getattr(_imported(module), attribute, None)
    if not callable(function):
        raise InputError(f"router {name!r}: {module} has no function {attribute!r}; expected module:function")
    return function


def _imported(module) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"module {module!r} of a router: {error}; expected an importable module") from error


def _takes_a_library(value) -> bool:
    return inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), None) == "library"
