"""Checked reading of JSON and JSON lines: every error names the file, the line and the key."""

import json
import pathlib
from collections.abc import Iterator

from modjax import arguments
from modjax.data.splits import SPLITS, assign_split
from modjax.errors import InputError
from modjax.files import read_text, split_lines

REQUIRED = object()  # stands for "no default", because None is a valid default
KINDS = {str: "a string", list: "a list", bool: "true or false"}


def read_json_lines(path: pathlib.Path) -> Iterator[tuple[object, str]]:
    """(value, "FILE, line N") of each line that is not blank; a .gz file is decompressed.

    Raises InputError as `read_text` does, and for a line that is not JSON.
    """
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                yield json.loads(line), where
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error


def field(record, key: str, kind: type, where, default=REQUIRED):
    """`record[key]`, checked to be of `kind`; `default` if the key is absent or null.

    `where` names the record in the InputError that a missing key or a value of another kind raises.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: found {type(record).__name__}; expected an object with the key {key!r}")
    value = record.get(key)
    if value is None and default is not REQUIRED:
        return default
    if not isinstance(value, kind):
        found = f"is {value!r}" if key in record else f"is missing (the keys are {', '.join(record)})"
        raise InputError(f"{where}: key {key!r} {found}; expected {KINDS[kind]}")
    return arguments.text(f"{where}: key {key!r}", value) if kind is str else value


def strings(record, key: str, where) -> list[str]:
    """`record[key]`, checked to be a list of one or more strings."""
    found = field(record, key, list, where)
    if not found or not all(isinstance(string, str) for string in found):
        raise InputError(f"{where}: key {key!r} is {found!r}; expected a list of one or more strings")
    return [arguments.text(f"{where}: key {key!r}", string) for string in found]


def split_of(record, index: int, where: str) -> str:
    """The split of a record, or else that of its index in its task."""
    split = field(record, "split", str, where, None) or assign_split(index)
    if split not in SPLITS:
        raise InputError(f"{where}: key 'split' is {split!r}; expected one of {SPLITS}")
    return split


def id_of(record) -> str:
    """The id of a record that may have one, a text or a number."""
    found = record.get("id")
    return str(found) if isinstance(found, str | int) else ""
