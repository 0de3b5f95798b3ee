"""Text and JSON files: reading with errors that name the file, atomic writing, and names that any file system takes."""

import json
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from modjax.errors import InputError

_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # JSON strings have no raw line breaks, so this never matches inside one
_MOST_BYTES = 100  # of a safe name: short enough for every file system, with room for what is added to it
_RESERVED = {"con", "prn", "aux", "nul", *(port + digit for port in ("com", "lpt") for digit in "123456789¹²³")}


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


def safe_name(name: str, taken: Iterable[str] = ()) -> str:
    """A name for a file or folder from any text, different from `taken` on every file system.

    Characters other than letters, digits and `_.+-` become `_`. The name has at most 100 bytes before a number that
    makes it differ from `taken`, no dot or dash at its start, no dot at its end, and is no name that Windows reserves.
    Names that differ only in case or in Unicode normalisation count as equal. A safe name is kept as it is.
    """
    safe = re.sub(r"[^\w.+-]", "_", unicodedata.normalize("NFC", name)).lstrip(".-")
    safe = "_" + safe if safe.split(".")[0].lower() in _RESERVED else safe
    safe = safe.encode()[:_MOST_BYTES].decode(errors="ignore").rstrip(".") or "_"
    used, unique, number = {_folded(other) for other in taken}, safe, 1
    while _folded(unique) in used:
        number += 1
        unique = f"{safe}-{number}"
    return unique


def _folded(name: str) -> str:
    """The form in which file systems that ignore case and Unicode normalisation compare names."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


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
