"""A folder is tied to the inputs of its results, so that nothing kept is reused for other inputs."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from modjax.errors import InputError
from modjax.files import read_json, write_json


def claim(path: pathlib.Path, inputs: dict[str, Any]) -> None:
    """Writes the inputs of a folder's results to a JSON file in it, or compares them with those that it has.

    Raises InputError naming the first key that differs, and changes nothing.
    """
    inputs = json.loads(json.dumps(inputs))
    if not path.exists():
        write_json(path, inputs)
        return
    for key, had, has in _differences(read_json(path), inputs, path.stem):
        raise InputError(
            f"{path}: this folder was made with {key} = {had!r}; found {has!r}, expected the same or a new folder"
        )


def _differences(had: Any, has: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(had, dict) and isinstance(has, dict):
        for name in {**had, **has}:
            yield from _differences(had.get(name), has.get(name), f"{key}.{name}")
    elif had != has:
        yield key, had, has
