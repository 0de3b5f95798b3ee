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
from collections.abc import Iterable, Iterator, Sequence

from modjax.errors import InputError
from modjax.experts import index as index_file
from modjax.experts import peft
from modjax.experts.adapter import Adapter
from modjax.experts.index import INDEX, Entry, Index, folder_name
from modjax.experts.peft import WEIGHTS
from modjax.experts.places import places

DRAFT = ".writing"  # inside a library no expert's folder: theirs begin with no dot


def save(adapters: Iterable[Adapter], layers: int, path: str | pathlib.Path) -> None:
    """Writes adapters to a model of L layers as a library. Raises InputError where `path` holds anything else."""
    path = pathlib.Path(path)
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / INDEX).exists()):
        raise InputError(f"{path}: exists and holds no {INDEX}; expected a new folder or an earlier library")
    draft, earlier = (path.with_name(path.name + suffix) for suffix in (DRAFT, ".earlier"))
    for left_over in (draft, earlier):
        shutil.rmtree(left_over, ignore_errors=True)
    entries = _written(adapters, layers, draft)
    index_file.write(draft, Index(layers, entries))
    if path.exists():
        os.replace(path, earlier)
    os.replace(draft, path)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | pathlib.Path) -> tuple[list[Adapter], int]:
    """The adapters of a library, checked against their hashes, and the number of layers of their base model.

    Raises InputError naming the file for anything missing, damaged or contradictory.
    """
    path = pathlib.Path(path)
    index = index_file.read(path)
    return [_adapter(path, entry) for entry in index.entries], index.layers


def add(path: str | pathlib.Path, adapters: Sequence[Adapter], layers: int) -> None:
    """Adds experts after those of a saved library, whose files stay untouched.

    Raises InputError, and changes nothing, where a name is taken, and where the base model's fingerprint, its layers or
    a site's widths are not those of the saved experts.
    """
    path = pathlib.Path(path)
    index = index_file.read(path)
    _check_fit(path, index, adapters, layers)
    shutil.rmtree(path / DRAFT, ignore_errors=True)
    added = _written(adapters, layers, path / DRAFT, taken=[one.name for one in path.iterdir()])
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


def _written(adapters, layers, root, taken=()) -> tuple[Entry, ...]:
    """Writes each adapter into its own folder below the root; one adapter at a time is in memory."""
    entries = []
    for adapter in adapters:
        folder = folder_name(adapter.info.name, [*taken, *(entry.folder for entry in entries)])
        peft.write(adapter, root / folder, layers)
        info = dataclasses.replace(adapter.info, rank=adapter.rank)
        entries.append(Entry(info, folder, _sha256(root / folder / WEIGHTS)))
    return tuple(entries)


def _check_fit(path, index, adapters, layers):
    infos = [adapter.info for adapter in adapters]
    taken = [info.name for info in infos if info.name in index.names]
    if taken:
        raise InputError(f"{path / INDEX}: has an expert {taken[0]!r} already; drop it first, or rename the new one")
    bases = {entry.info.fingerprint for entry in index.entries} - {""}
    for info in infos:
        if bases and info.fingerprint not in bases | {""}:
            raise InputError(
                f"expert {info.name!r} is of the base model with fingerprint {info.fingerprint}; those of {path} "
                f"are of {', '.join(sorted(bases))}"
            )
    if layers != index.layers:
        raise InputError(f"{path}: experts for {index.layers} layers; those to add are for {layers}")
    known = {site: widths for entry in index.entries for site, widths in _widths(path, entry)}
    for (site, _), one in (module for adapter in adapters for module in adapter.modules.items()):
        if known.get(site, widths := (one.a.shape[1], one.b.shape[1])) != widths:
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
