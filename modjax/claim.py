"""A folder is tied to the inputs of its results, so that nothing kept is reused for other inputs."""

import pathlib
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

from modjax.arguments import shown
from modjax.errors import InputError
from modjax.files import os_errors, plain, read_json, write_json


def claim(path: pathlib.Path, inputs: dict[str, Any], kept: Iterable[pathlib.Path] = ()) -> None:
    """Writes the inputs of a folder's results to a JSON file in it, or compares them with those that it has.

    Args:
      inputs: plain data; objects by digests of their content, and what has an order as a list.
      kept: where the results lie. If one is there without the file, its inputs are not known.

    Raises InputError naming the first key that differs, or the result of unknown inputs, and changes nothing.
    """
    inputs = plain(inputs)
    with os_errors(path, "written"):
        if not path.exists():
            for result in filter(pathlib.Path.exists, kept):
                raise InputError(
                    f"{path}: is missing, so it is not known what {result} was made of; expected a new folder"
                )
            write_json(path, inputs)
            return
    for key, had, has in _differences(read_json(path), inputs, path.stem):
        raise InputError(
            f"{path}: this folder was made with {key} = {shown(had)}; found {shown(has)}, expected the same or a new "
            "folder"
        )


def _differences(had: Any, has: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(had, dict) and isinstance(has, dict):
        for name in {**had, **has}:
            yield from _differences(had.get(name), has.get(name), f"{key}.{name}")
    elif isinstance(had, list) and isinstance(has, list):
        for index, pair in enumerate(zip_longest(had, has)):
            yield from _differences(*pair, f"{key}[{index}]")
    elif had != has:
        yield key, had, has
