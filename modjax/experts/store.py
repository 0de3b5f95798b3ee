"""Libraries on disk: a folder of ordinary PEFT adapters and library.json.

    library/
      library.json                  schema version, the experts in order with all that is known of them, sha256
      <expert>/adapter_config.json  as PEFT writes it
      <expert>/adapter_model.safetensors

Each adapter loads in PEFT as it is, and PEFT's own adapters are read by `from_peft`. A library is written beside its
place and moved there when complete, and one that it replaces is deleted last: nothing half-written is ever found
under its name, and nothing is lost to a process that dies.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from modjax.errors import InputError
from modjax.experts import peft
from modjax.experts.adapter import DTYPES, Adapter, from_library, to_library
from modjax.experts.library import ExpertInfo, Library
from modjax.experts.modules import MOST_LAYERS
from modjax.experts.peft import WEIGHTS
from modjax.files import read_json_object
from modjax.models.modules import MODULES

SCHEMA = 1
INDEX = "library.json"


def save(library: Library, path: str | pathlib.Path) -> None:
    """Writes a library. Raises InputError when `path` holds something that is no library."""
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / INDEX).exists()):
        raise InputError(f"{path}: exists and holds no {INDEX}; expected a new folder or an earlier library")
    draft, earlier = (path.with_name(path.name + suffix) for suffix in (".writing", ".earlier"))
    for left_over in (draft, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    layers = next(iter(library.loras.values())).a.shape[0]
    written = zip(_folders(library.names), from_library(library), strict=True)
    entries = [_entry(adapter, draft / folder, layers) for folder, adapter in written]
    (draft / INDEX).write_text(_json({"schema": SCHEMA, "layers": layers, "experts": entries}), encoding="utf-8")
    if path.exists():
        os.replace(path, earlier)
    os.replace(draft, path)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | pathlib.Path) -> Library:
    """Reads a library and checks it against its hashes. Raises InputError naming the file for whatever is wrong."""
    path = pathlib.Path(path)
    index = read_json_object(path / INDEX)
    if index.get("schema") != SCHEMA:
        raise InputError(f"{path / INDEX}: schema {index.get('schema')!r}; this version reads {SCHEMA}")
    layers = index.get("layers")  # libraries of earlier versions have factors in every layer and do not say
    if layers is not None and not (_is_whole(layers) and 0 < layers <= MOST_LAYERS):
        raise InputError(f"{path / INDEX}: layers = {layers!r}; expected a number from 1 to {MOST_LAYERS}")
    adapters = list(_adapters(path, index))
    library = to_library(adapters, layers)
    return dataclasses.replace(library, infos=tuple(adapter.info for adapter in adapters))


def _adapters(path, index) -> Iterator[Adapter]:
    for number, entry in enumerate(_entries(index, path / INDEX)):
        info = _info(entry, f"{path / INDEX}: expert {number}")
        folder = path / entry["folder"]
        digest = _sha256(folder / WEIGHTS)
        if digest != entry["sha256"]:
            raise InputError(f"{folder / WEIGHTS}: sha256 {digest[:12]}...; {INDEX} has {entry['sha256'][:12]}...")
        adapter = peft.adapter_of(peft.open_adapter(folder, info.name), info.family)
        if adapter.rank != info.rank:
            raise InputError(f"{folder / WEIGHTS}: its rank is {adapter.rank}; {INDEX} has {info.rank}")
        yield dataclasses.replace(adapter, info=dataclasses.replace(info, dtype=adapter.info.dtype))


def _folders(names):
    """A folder name for each expert: its own, freed of what file systems refuse, and unique."""
    taken: dict[str, None] = {}
    for name in names:
        safe = re.sub(r"[^\w.+-]", "_", name).strip(".") or "expert"
        while safe.lower() in taken:
            safe += "_"
        taken[safe.lower()] = None
        yield safe


def _entry(adapter, folder, layers) -> dict[str, Any]:
    peft.write(adapter, folder, layers)
    entry = dataclasses.asdict(adapter.info) | {"rank": adapter.rank}
    entry |= {key: dict(value) for key, value in entry.items() if key in PAIRS}
    return entry | {"folder": folder.name, "sha256": _sha256(folder / WEIGHTS)}


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
    "folder": lambda value: _is_text(value) and next(_folders([value])) == value,
    "sha256": _is_text,
    "ranks": _object_of(_list_of(_is_whole)),
    "ratios": _object_of(_list_of(_is_number)),
    "dtype": lambda value: _is_text(value) and value in DTYPES,
    "peft": _is_text,
}
PAIRS = ("training", "scores", "ranks", "ratios")
LATER = {"ranks": {}, "ratios": {}, "dtype": "float32", "peft": ""}  # what their absence means in earlier libraries


def _entries(index, where):
    entries = index.get("experts")
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{where}: key 'experts' is {type(entries).__name__}; expected a list of at least one expert")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not set(FIELDS) <= set(LATER | entry):
            raise InputError(f"{where}: expert {number} lacks a key; expected {', '.join(sorted(FIELDS))}")
    return entries


def _info(entry, where) -> ExpertInfo:
    entry = LATER | entry
    for key, fits in FIELDS.items():
        if not fits(entry[key]):
            raise InputError(f"{where}: {key} = {entry[key]!r:.80} is not what modjax writes there")
    values = {field.name: entry[field.name] for field in dataclasses.fields(ExpertInfo)}
    pairs = {key: tuple((name, _frozen(value)) for name, value in values[key].items()) for key in PAIRS}
    return ExpertInfo(**values | pairs | {"tasks": tuple(values["tasks"])})


def _frozen(value):
    return tuple(value) if isinstance(value, list) else value


def _json(value):
    return json.dumps(value, indent=2) + "\n"


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
