"""Arguments of functions that configs name: from one string, and checked before the function is called."""

import ast
import inspect
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from modjax.errors import InputError


def parsed(text: str, where: str) -> dict[str, Any]:
    """{name: value} of a text as in a Python call, such as "density=0.3, form='products'".

    Values are literals; nothing is evaluated. Raises InputError for anything else; `where` is the key of the text.
    """
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError("no list of name=value")
        pairs = [(keyword.arg, ast.literal_eval(keyword.value)) for keyword in call.keywords]
        if len(dict(pairs)) < len(pairs) or any(name is None for name, _ in pairs):
            raise ValueError("a name stands twice, or none before a value")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{where} = {text!r}: expected name=value, ... as in Python ({error})") from error
    return dict(pairs)


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
