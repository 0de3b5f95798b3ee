"""Libraries on disk: a folder of ordinary PEFT adapters and library.json.

    library/
      library.json                  schema version, the experts in order with all that is known of them, sha256
      <expert>/adapter_config.json  as PEFT writes it
      <expert>/adapter_model.safetensors

Each adapter loads in PEFT as it is, and PEFT's own adapters are read by `from_peft`. Experts that share one A each have
it in their file, and share it again when they are read: where it is equal to the last bit it is held once.

A library is written beside its place and moved there when complete, and one that it replaces is deleted last: nothing
half-written is ever found under its name, and nothing is lost to a process that dies.

`add` and `drop` change a library where it lies. An expert is there when library.json, which is replaced whole, says so:
an added one is complete before that, a dropped one is deleted after. The files of the others are never written.
"""

import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

from modjax.errors import InputError
from modjax.experts import index as index_file
from modjax.experts import peft
from modjax.experts.adapter import Adapter, from_library, to_library
from modjax.experts.index import INDEX, Entry, Index, folder_names
from modjax.experts.library import Library
from modjax.experts.peft import WEIGHTS
from modjax.experts.places import places

DRAFT = ".writing"  # inside a library no expert's folder: theirs begin with no dot


def save(library: Library, path: str | pathlib.Path) -> None:
    """Writes a library. Raises InputError when `path` holds something that is no library."""
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / INDEX).exists()):
        raise InputError(f"{path}: exists and holds no {INDEX}; expected a new folder or an earlier library")
    draft, earlier = (path.with_name(path.name + suffix) for suffix in (DRAFT, ".earlier"))
    for left_over in (draft, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    written = zip(folder_names(library.names), from_library(library), strict=True)
    entries = tuple(_written(adapter, draft / folder, library.layers) for folder, adapter in written)
    index_file.write(draft, Index(library.layers, entries))
    if path.exists():
        os.replace(path, earlier)
    os.replace(draft, path)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | pathlib.Path) -> Library:
    """Reads a library and checks it against its hashes. Raises InputError naming the file for whatever is wrong."""
    path = pathlib.Path(path)
    index = index_file.read(path)
    adapters = [_adapter(path, entry) for entry in index.entries]
    return dataclasses.replace(to_library(adapters, index.layers), infos=tuple(adapter.info for adapter in adapters))


def add(path: str | pathlib.Path, library: Library) -> None:
    """Adds experts behind those of a saved library, whose files stay untouched.

    Raises InputError, and changes nothing, where a name is taken, and where the base model's fingerprint, its layers or
    a site's widths are not those of the saved experts.
    """
    path = pathlib.Path(path)
    index = index_file.read(path)
    index = dataclasses.replace(index, layers=index.layers or load(path).layers)
    _check_fit(path, index, library)
    shutil.rmtree(path / DRAFT, ignore_errors=True)
    written = zip(folder_names(library.names, (one.name for one in path.iterdir())), from_library(library), strict=True)
    added = tuple(_written(adapter, path / DRAFT / folder, index.layers) for folder, adapter in written)
    for entry in added:
        os.replace(path / DRAFT / entry.folder, path / entry.folder)
    index_file.write(path, dataclasses.replace(index, entries=index.entries + added))
    (path / DRAFT).rmdir()


def drop(path: str | pathlib.Path, names: str | Sequence[str]) -> None:
    """Takes experts out of a saved library; the others' files stay untouched.

    Raises InputError, and changes nothing, for a name that the library does not have, and where no expert would stay.
    """
    path = pathlib.Path(path)
    index, names = index_file.read(path), [names] if isinstance(names, str) else names
    index_file.write(path, index.without(names))
    for entry in index.entries:
        if entry.info.name in names:
            shutil.rmtree(path / entry.folder, ignore_errors=True)


def _adapter(path, entry) -> Adapter:
    file = path / entry.folder / WEIGHTS
    digest = _sha256(file)
    if digest != entry.sha256:
        raise InputError(f"{file}: sha256 {digest[:12]}...; {INDEX} has {entry.sha256[:12]}...")
    info = entry.info
    adapter = peft.adapter_of(peft.open_adapter(path / entry.folder, info.name), info.family)
    if adapter.rank != info.rank:
        raise InputError(f"{file}: its rank is {adapter.rank}; {INDEX} has {info.rank}")
    return dataclasses.replace(adapter, info=dataclasses.replace(info, dtype=adapter.info.dtype))


def _written(adapter, folder, layers) -> Entry:
    peft.write(adapter, folder, layers)
    info = dataclasses.replace(adapter.info, rank=adapter.rank)
    return Entry(info, folder.name, _sha256(folder / WEIGHTS))


def _check_fit(path, index, library):
    taken = [name for name in library.names if name in index.names]
    if taken:
        raise InputError(f"{path / INDEX}: has an expert {taken[0]!r} already; drop it first, or rename the new one")
    bases = {entry.info.fingerprint for entry in index.entries} - {""}
    for info in library.infos:
        if bases and info.fingerprint not in bases | {""}:
            raise InputError(
                f"expert {info.name!r} is of the base model with fingerprint {info.fingerprint}; those of {path} "
                f"are of {', '.join(sorted(bases))}"
            )
    if library.layers != index.layers:
        raise InputError(f"{path}: experts for {index.layers} layers; those to add are for {library.layers}")
    known = {site: widths for entry in index.entries for site, widths in _widths(path, entry)}
    for site, (a, b) in library.loras.items():
        if known.get(site, widths := (a.shape[3], b.shape[3])) != widths:
            raise InputError(
                f"{path}, site {site}: experts for (input, output) = {known[site]}; those to add are for {widths}"
            )


def _widths(path, entry) -> Iterator[tuple[str, tuple[int, int]]]:
    """(site, (input, output)) of an adapter's modules, from its header alone."""
    opened = peft.open_adapter(path / entry.folder, entry.info.name)
    for module, (site, _) in places(entry.info.family, opened.tensors, opened.file).items():
        pair = opened.tensors[module]
        yield site, pair["A"].shape[-1:] + pair["B"].shape[:1]


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
