"""JSON files: read with complaints that name the file, written whole or not at all."""

import json
import os
import pathlib
import re
from typing import Any

from modjax.errors import InputError

_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # strings hold no line break, so that none is changed


def read_json(path: str | os.PathLike) -> Any:
    """The value of one JSON file. Raises InputError where it is missing or no JSON."""
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error})") from error


def read_json_object(path: str | os.PathLike) -> dict[str, Any]:
    """As `read_json`, for files that hold an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds {type(found).__name__}; expected an object")
    return found


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes beside the place, in a folder made if need be, and moves there, so no file is seen half-written.

    A list of numbers takes one line.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    draft.write_text(_NUMBERS.sub(_one_line, json.dumps(value, indent=2)) + "\n", encoding="utf-8")
    os.replace(draft, path)


def _one_line(numbers: re.Match) -> str:
    return "[" + " ".join(numbers[0][1:-1].split()) + "]"
