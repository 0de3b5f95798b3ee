"""Arguments of functions that configs name: from one string, and checked before the function is called."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

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
    """What the function gives. Raises InputError for options that it does not have, and for those that it lacks.

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
    return function(*given, **options)
