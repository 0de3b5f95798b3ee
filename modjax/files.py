"""Text and JSON files: reading with errors that name the file, atomic writing, and names that any file system takes."""

import codecs
import contextlib
import functools
import gzip
import hashlib
import json
import math
import os
import pathlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from modjax.errors import InputError

_NUMBERS = re.compile(r'\[\n[^][{}"]*\]')  # JSON strings have no raw line breaks, so this never matches inside one
_MOST_BYTES = 100  # of a safe name: short enough for every file system, with room for what is added to it
_RESERVED = {"con", "prn", "aux", "nul", *(port + digit for port in ("com", "lpt") for digit in "123456789¹²³")}
_LINE_END = re.compile("\r\n|\r|\n")


def read_text(path: str | os.PathLike) -> str:
    """The text in a UTF-8 file, without a byte order mark; a .gz file is decompressed.

    Raises InputError if the file is missing, damaged or not UTF-8.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: cannot be read as gzip ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read as gzip: truncated or damaged ({error})") from error
    return decoded(content, str(path))


def decoded(content: bytes, where: str) -> str:
    """UTF-8 bytes as text, without a byte order mark. Raises InputError naming `where` for other bytes."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{where}: is text in UTF-16, by its first two bytes; expected UTF-8. Save it again as UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(content) - len(error.object)
        line = len(split_lines(content[:at].decode("utf-8")))
        raise InputError(
            f"{where}, line {line}: byte {at} is 0x{content[at]:02X}, which is not UTF-8; expected text in UTF-8"
        ) from error


def split_lines(text: str) -> list[str]:
    r"""The lines of a text, without their ends; what follows the last end is a line too, if only an empty one.

    A line ends at \n, \r\n or \r, as when Python opens a text file; not at a form feed, U+0085, U+2028 and other
    characters at which `str.splitlines` splits, since they may stand within a text.
    """
    return _LINE_END.split(text)


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a UTF-8 file that are not blank. Raises InputError as `read_text` does, and if there are none."""
    lines = [line for line in split_lines(read_text(path)) if line.strip()]
    if not lines:
        raise InputError(f"{path}: has no text; expected at least one line")
    return lines


def read_json(path: str | os.PathLike) -> Any:
    """The value in a JSON file. Raises InputError as `read_text` does, and if the file is empty or not JSON."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: is empty; expected JSON")
    try:
        return json.loads(text)
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

    Creates missing folders. A list of numbers takes one line. Values become plain as by `plain`.
    """
    path = pathlib.Path(path)
    check_file(path)
    text = json.dumps(value, indent=2, default=_plain)
    replace(path, (_NUMBERS.sub(_one_line, text) + "\n").encode())


def replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file under another name and then moves it to its place; creates missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".writing")
    draft.write_bytes(content)
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


def own_name(name: str) -> str:
    """A safe name that no other text has, on any file system: with a hash unless the text is one in lower case."""
    safe = safe_name(name)
    if safe == name == name.casefold():
        return safe
    return f"{safe}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:8]}"


@functools.lru_cache(maxsize=1 << 16)
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


def check_file(path: pathlib.Path) -> None:
    """Raises InputError for a path that no file may replace, because a folder, a device or a pipe is there."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is a {'folder' if path.is_dir() else 'device'}; expected a file to write or replace")


@contextlib.contextmanager
def os_errors(path: str | os.PathLike, done: str) -> Iterator[None]:
    """Turns errors of the file system into InputErrors that name the path; done: "read" or "written"."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be {done} ({error.strerror or error})") from error


def replaceable(folder: str | os.PathLike) -> pathlib.Path:
    """The real path of a folder that is written under another name first, and moved to its place when complete.

    Raises InputError if there is something other than a folder, such as a file or a device, and if the process works in
    that folder, or below it: it would work in one that is deleted.
    """
    real, here = pathlib.Path(os.path.realpath(folder)), pathlib.Path.cwd()
    if real.exists() and not real.is_dir():
        raise InputError(f"{folder}: is no folder, but exists; expected a new or an empty folder")
    if real in (here, *here.parents):
        raise InputError(f"{folder}: is the folder of this process, or above it; expected another, as a new one in it")
    return real
