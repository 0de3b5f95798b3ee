"""Checked reading of JSON and JSON lines: every error names the file, the line and the key."""

import gzip
import json
import pathlib
import zlib
from collections.abc import Iterator

from modjax import arguments
from modjax.errors import InputError

REQUIRED = object()  # stands for "no default", because None is a valid default
KINDS = {str: "a string", list: "a list", bool: "true or false"}


def read_json_lines(path: pathlib.Path) -> Iterator[tuple[object, str]]:
    """(value, "FILE, line N") of each non-empty line; a .gz file is decompressed.

    Raises InputError if the file is missing or damaged, or a line is not JSON.
    """
    for number, line in enumerate(_text(path).split("\n"), start=1):
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


def _text(path: pathlib.Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected JSON lines")
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected JSON lines in UTF-8") from error
