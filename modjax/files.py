"""JSON files: reading with errors that name the file, and atomic writing."""

import json
import math
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from modjax.errors import InputError

_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # JSON strings have no raw line breaks, so this never matches inside one


def read_json(path: str | os.PathLike) -> Any:
    """The value in a JSON file. Raises InputError if the file is missing or is not JSON."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError as `read_json` does, and for any other value."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: found {type(found).__name__}; expected an object")
    return found


def plain(value: Any) -> Any:
    """The value as it is read from a JSON file: tuples as lists, paths as text, scalars of NumPy and JAX as numbers."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value):
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(f"{type(value).__name__}: expected what JSON can hold")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes to a temporary file beside `path` and renames it, so that no partly written file is ever seen.

    Creates missing folders. A list of numbers takes one line.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    draft.write_text(_NUMBERS.sub(_one_line, json.dumps(value, indent=2)) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _one_line(numbers: re.Match) -> str:
    return "[" + " ".join(numbers[0][1:-1].split()) + "]"


def is_whole(value: Any) -> bool:
    """Whether a JSON value is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def is_text(value: Any) -> bool:
    """Whether a JSON value is a string."""
    return isinstance(value, str)


def is_bool(value: Any) -> bool:
    """Whether a JSON value is true or false."""
    return isinstance(value, bool)


def list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A predicate: whether a JSON value is a list whose items all fit."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def object_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A predicate: whether a JSON value is an object whose values all fit."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))
