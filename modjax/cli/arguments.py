"""Arguments of functions that configs name: from one string, and checked before the function is called."""

import ast
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
