"""library.json: the experts in a library's folder, in order, with the facts about each."""

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from modjax.errors import InputError
from modjax.experts.adapter import DTYPES
from modjax.experts.info import ExpertInfo
from modjax.experts.places import MOST_LAYERS
from modjax.files import read_json_object, write_json
from modjax.models.hf_names import MODULES

SCHEMA = 1
INDEX = "library.json"


class Entry(NamedTuple):
    """One expert: the facts about it, and where its adapter lies."""

    info: ExpertInfo
    folder: str  # below the library's
    sha256: str  # of its weights


@dataclasses.dataclass(frozen=True)
class Index:
    """The content of library.json.

    Attributes:
      layers: of the base model.
      entries: one per expert, in the library's order.
    """

    layers: int
    entries: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.info.name for entry in self.entries)

    def without(self, names: Sequence[str]) -> "Index":
        """The index without these experts. Raises InputError for an unknown name, and if no expert would be left."""
        for name in names:
            if name not in self.names:
                raise InputError(f"no expert {name!r}; the library has {', '.join(self.names)}")
        kept = tuple(entry for entry in self.entries if entry.info.name not in names)
        if not kept:
            raise InputError("no expert would be left; expected at least one to stay. Delete the folder instead")
        return dataclasses.replace(self, entries=kept)


def read(folder: pathlib.Path) -> Index:
    """The index of a library's folder. Raises InputError naming file, expert and key for invalid content."""
    path = folder / INDEX
    found = read_json_object(path)
    if found.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema {found.get('schema')!r}; this version reads {SCHEMA}")
    layers = found.get("layers")
    if not (_is_whole(layers) and 0 < layers <= MOST_LAYERS):
        raise InputError(f"{path}: layers = {layers!r}; expected a number from 1 to {MOST_LAYERS}")
    entries = enumerate(_entries(found, path))
    return Index(layers, tuple(_entry(entry, f"{path}: expert {number}") for number, entry in entries))


def write(folder: pathlib.Path, index: Index) -> None:
    """Writes the index over an earlier one, whole or not at all."""
    entries = [_as_json(entry) for entry in index.entries]
    write_json(folder / INDEX, {"schema": SCHEMA, "layers": index.layers, "experts": entries})


def folder_name(name: str, taken: Iterable[str] = ()) -> str:
    """A folder for an expert: its name without the characters that file systems refuse, and not among `taken`."""
    known = {other.lower() for other in taken}
    safe = re.sub(r"[^\w.+-]", "_", name).strip(".") or "expert"
    while safe.lower() in known:
        safe += "_"
    return safe


def _is_whole(value):
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value):
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value):
    return isinstance(value, str)


def _list_of(fits):
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _object_of(fits):
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


FIELDS = {
    "name": _is_text,
    "tasks": _list_of(_is_text),
    "rank": lambda value: _is_whole(value) and value > 0,
    "alpha": _is_number,
    "base": _is_text,
    "family": lambda value: _is_text(value) and value in MODULES,
    "fingerprint": _is_text,
    "training": _object_of(lambda value: _is_text(value) or isinstance(value, int | float)),
    "scores": _object_of(lambda value: isinstance(value, int | float)),
    "folder": lambda value: _is_text(value) and folder_name(value) == value,
    "sha256": _is_text,
    "ranks": _object_of(_list_of(_is_whole)),
    "dtype": lambda value: _is_text(value) and value in DTYPES,
    "peft": _is_text,
}
PAIRS = ("training", "scores", "ranks")


def _entries(found, where):
    entries = found.get("experts")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: key 'experts' is {type(entries).__name__}; expected a list of at least one expert")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not set(FIELDS) <= set(entry):
            raise InputError(f"{where}: expert {number} lacks a key; expected {', '.join(sorted(FIELDS))}")
    return entries


def _entry(entry: dict[str, Any], where) -> Entry:
    for key, fits in FIELDS.items():
        if not fits(entry[key]):
            raise InputError(f"{where}: {key} = {entry[key]!r:.80} is invalid; expected a value as modjax writes it")
    values = {field.name: entry[field.name] for field in dataclasses.fields(ExpertInfo)}
    pairs = {key: tuple((name, _frozen(value)) for name, value in values[key].items()) for key in PAIRS}
    info = ExpertInfo(**values | pairs | {"tasks": tuple(values["tasks"])})
    return Entry(info, entry["folder"], entry["sha256"])


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def _as_json(entry: Entry) -> dict[str, Any]:
    known = dataclasses.asdict(entry.info)
    return known | {key: dict(known[key]) for key in PAIRS} | {"folder": entry.folder, "sha256": entry.sha256}
