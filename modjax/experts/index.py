"""library.json: the list of experts in a library's folder, in order, with the info of each."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from modjax.errors import InputError
from modjax.experts.info import DTYPES, ExpertInfo
from modjax.experts.places import MOST_LAYERS
from modjax.files import (
    is_bool,
    is_number,
    is_text,
    is_whole,
    list_of,
    object_of,
    read_json_object,
    safe_name,
    write_json,
)
from modjax.models.hf_names import MODULES

SCHEMA = 1
INDEX = "library.json"
PROTOTYPES = "prototypes.safetensors"
# Files that a library's folder may hold, and that no folder of an expert may be named after.
OWN_FILES = (INDEX, f"{INDEX}.writing", PROTOTYPES, "convert.json", "convert.json.writing", "adapter_config.json")


class Entry(NamedTuple):
    """One expert: its info, the folder of its adapter, and the hash of its weights."""

    info: ExpertInfo
    folder: str  # name of its folder inside the library's
    sha256: str  # of its weights file


@dataclasses.dataclass(frozen=True)
class Index:
    """The content of library.json.

    Attributes:
      layers: the number of layers of the base model.
      entries: one per expert, in the library's order.
    """

    layers: int
    entries: tuple[Entry, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.info.name for entry in self.entries)

    @property
    def rank(self) -> int:
        """The largest rank of an expert."""
        return max(entry.info.rank for entry in self.entries)

    def without(self, names: Sequence[str]) -> "Index":
        """The index without these experts. Raises InputError for an unknown name, and if no expert would be left."""
        for name in names:
            if name not in self.names:
                raise InputError(f"no expert {name!r}; the library has {', '.join(self.names)}")
        kept = tuple(entry for entry in self.entries if entry.info.name not in names)
        if not kept:
            raise InputError("no expert would be left; expected at least one. To remove all, delete the folder")
        return dataclasses.replace(self, entries=kept)


def read(folder: pathlib.Path) -> Index:
    """The index of a library's folder. Raises InputError naming file, expert and key for invalid content."""
    path = folder / INDEX
    found = read_json_object(path)
    if found.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema is {found.get('schema')!r}; this version of modjax reads {SCHEMA}")
    layers = found.get("layers")
    if not (is_whole(layers) and 0 < layers <= MOST_LAYERS):
        raise InputError(f"{path}: layers = {layers!r}; expected a whole number from 1 to {MOST_LAYERS}")
    entries = enumerate(_entries(found, path))
    return Index(layers, tuple(_entry(entry, f"{path}: expert {number}") for number, entry in entries))


def write(folder: pathlib.Path, index: Index) -> None:
    """Writes library.json, replacing an earlier one atomically."""
    entries = [_as_json(entry) for entry in index.entries]
    write_json(folder / INDEX, {"schema": SCHEMA, "layers": index.layers, "experts": entries})


def folder_name(name: str, taken: Iterable[str] = ()) -> str:
    """A name for the folder of an expert, different from `taken` and from the files of a library."""
    return safe_name(name, [*OWN_FILES, *taken])


def _is_folder(value):
    """Whether a JSON value is the name of a folder inside the library's, as this or an earlier version writes it."""
    return is_text(value) and re.fullmatch(r"[\w+-][\w.+-]*", value) is not None


FIELDS = {
    "name": lambda value: is_text(value) and value != "",
    "tasks": list_of(is_text),
    "rank": lambda value: is_whole(value) and value > 0,
    "alpha": is_number,
    "base": is_text,
    "family": lambda value: is_text(value) and value in MODULES,
    "fingerprint": is_text,
    "training": object_of(lambda value: is_text(value) or is_bool(value) or is_number(value)),
    "failed": lambda value: value is None or (is_whole(value) and value > 0),
    "scores": object_of(is_number),
    "folder": _is_folder,
    "sha256": is_text,
    "ranks": object_of(list_of(is_whole)),
    "dtype": lambda value: is_text(value) and value in DTYPES,
    "peft": is_text,
}
PAIRS = ("training", "scores", "ranks")
DEFAULTS = {"failed": None}  # of keys that earlier versions did not write


def _entries(found, where):
    entries = found.get("experts")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: key 'experts' is {type(entries).__name__}; expected a list of at least one expert")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{where}: expert {number} is {type(entry).__name__}; expected an object")
        if missing := sorted(set(FIELDS) - {*DEFAULTS, *entry}):
            raise InputError(f"{where}: expert {number} has no key {missing[0]!r}; expected keys {', '.join(FIELDS)}")
    return [DEFAULTS | entry for entry in entries]


def _entry(entry: dict[str, Any], where) -> Entry:
    for key, fits in FIELDS.items():
        if not fits(entry[key]):
            raise InputError(f"{where}: {key} = {entry[key]!r:.80} is invalid; expected what Library.save writes")
    values = {field.name: entry[field.name] for field in dataclasses.fields(ExpertInfo)}
    return Entry(ExpertInfo(**values), entry["folder"], entry["sha256"])


def _as_json(entry: Entry) -> dict[str, Any]:
    known = dataclasses.asdict(entry.info)
    return known | {key: dict(known[key]) for key in PAIRS} | {"folder": entry.folder, "sha256": entry.sha256}
