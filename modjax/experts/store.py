"""Libraries on disk: a folder of ordinary PEFT adapters and library.json.

    library/
      library.json                  schema version, the experts in order with the info of each, sha256
      <expert>/adapter_config.json  as PEFT writes it
      <expert>/adapter_model.safetensors

Each adapter loads in PEFT unchanged, and PEFT's own adapters are read by `from_peft`. If experts share one A, each file
has a copy of it; when the library is read, copies that are bit-identical become one again.

A library is written to a temporary folder beside its path and moved there when complete; one that it replaces is
deleted last. So an incomplete library never has the final name, and a process that dies loses nothing.

`add` and `drop` change a library in place. Its experts are those that library.json lists, and library.json is replaced
atomically: an added expert is complete before that, a dropped one is deleted after. The files of other experts are
never written.
"""

import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence

from modjax import arguments
from modjax.arguments import texts, whole
from modjax.errors import InputError
from modjax.experts import depth, peft
from modjax.experts import index as index_file
from modjax.experts.adapter import Adapter, each
from modjax.experts.forms import form_of
from modjax.experts.index import INDEX, Entry, Index, folder_name
from modjax.experts.places import MOST_LAYERS, places
from modjax.experts.weights_file import WEIGHTS
from modjax.files import os_errors, replaceable

DRAFT = ".writing"  # cannot be the folder of an expert: those never begin with a dot


def save(adapters: Iterable[Adapter], layers: int, path: str | os.PathLike) -> None:
    """Writes adapters to a base model of L layers as a library.

    Raises InputError if `path` has other content, cannot be written, or is the folder of this process.
    """
    path, layers = arguments.path("path", path), whole("layers", layers, 1, MOST_LAYERS)
    with os_errors(path, "written"):
        target = replaceable(path)
        if target.is_dir() and any(target.iterdir()) and not (target / INDEX).exists():
            raise InputError(
                f"{path}: exists and holds no {INDEX}; expected a new path, an empty folder, or a library to replace"
            )
        draft, earlier = (target.with_name(target.name + suffix) for suffix in (DRAFT, ".earlier"))
        for left_over in (draft, earlier):
            shutil.rmtree(left_over, ignore_errors=True)
        entries = _written(adapters, layers, draft)
        index_file.write(draft, Index(layers, entries))
        if target.exists():
            os.replace(target, earlier)
        os.replace(draft, target)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | os.PathLike) -> tuple[list[Adapter], int]:
    """The adapters of a library, checked against their hashes, and the number of layers of their base model.

    Raises InputError naming the file if anything is missing, damaged or inconsistent.
    """
    path = arguments.path("path", path)
    index = listed(path)
    return [read(path, entry) for entry in index.entries], index.layers


def listed(path: pathlib.Path) -> Index:
    """What library.json says of a library. Raises InputError naming the file, and for a folder of another form."""
    _check_form(path)
    return index_file.read(path)


def read(path: pathlib.Path, entry: Entry) -> Adapter:
    """The adapter of one expert of a library, checked against its hash. Raises InputError as `load`."""
    file = path / entry.folder / WEIGHTS
    digest = _sha256(file)
    if digest != entry.sha256:
        raise InputError(f"{file}: sha256 is {digest[:12]}...; expected {entry.sha256[:12]}..., as in {INDEX}")
    info = entry.info
    adapter = peft.adapter_of(peft.open_adapter(path / entry.folder, info.name), info.family)
    if adapter.rank != info.rank:
        raise InputError(f"{file}: rank is {adapter.rank}; expected {info.rank}, as in {INDEX}")
    return dataclasses.replace(adapter, info=dataclasses.replace(info, dtype=adapter.info.dtype))


def widths(path: pathlib.Path, entry: Entry) -> dict[str, tuple[int, int]]:
    """{site: (input width, output width)} of an expert's modules, read from the header of its file."""
    opened = peft.open_adapter(path / entry.folder, entry.info.name)
    found = places(entry.info.family, opened.tensors, opened.file)
    pairs = ((site, opened.tensors[module]) for module, (site, _) in found.items())
    return {site: (pair["A"].shape[-1], pair["B"].shape[0]) for site, pair in pairs}


def add(path: str | os.PathLike, adapters: Iterable[Adapter], layers: int) -> None:
    """Adds experts after those of a saved library, whose files are not written.

    Raises InputError, and changes nothing, if a name is taken, or if the base model's fingerprint, its number of layers
    or the widths of a site differ from those of the saved experts.
    """
    path, layers = arguments.path("path", path), whole("layers", layers, 1, MOST_LAYERS)
    adapters = list(each(adapters))
    index = index_file.read(path)
    _check_fit(path, index, adapters, layers)
    if not adapters:
        return
    shutil.rmtree(path / DRAFT, ignore_errors=True)
    with os_errors(path, "written"):
        added = _written(adapters, layers, path / DRAFT, taken=[one.name for one in path.iterdir()])
        for entry in added:
            os.replace(path / DRAFT / entry.folder, path / entry.folder)
        index_file.write(path, dataclasses.replace(index, entries=index.entries + added))
        (path / DRAFT).rmdir()


def drop(path: str | os.PathLike, names: str | Sequence[str]) -> None:
    """Removes experts from a saved library; the files of the others are not written.

    Raises InputError, and changes nothing, for a name that the library does not have, and if no expert would be left.
    """
    path, names = arguments.path("path", path), texts("names", [names] if isinstance(names, str) else names)
    index = index_file.read(path)
    with os_errors(path, "written"):
        index_file.write(path, index.without(names))
    for entry in index.entries:
        if entry.info.name in names:
            shutil.rmtree(path / entry.folder, ignore_errors=True)


def _check_form(path):
    """Refuses a folder of experts in another form, with the way to make a library of it."""
    form = form_of(path)
    if form not in ("library", None):
        raise InputError(
            f"{path}: holds experts of {form}, and no {INDEX}; make a library of it: modjax convert --from={path} "
            f"--to=NEW_DIR, or Library.from_{form}"
        )


def _written(adapters, layers, root, taken=()) -> tuple[Entry, ...]:
    """Writes each adapter to its own folder below the root, with one adapter in memory at a time."""
    entries = []
    for adapter in each(adapters):
        folder = folder_name(adapter.info.name, [*taken, *(entry.folder for entry in entries)])
        peft.write(adapter, root / folder, layers)
        info = dataclasses.replace(adapter.info, rank=adapter.rank)
        entries.append(Entry(info, folder, _sha256(root / folder / WEIGHTS)))
    return tuple(entries)


def _check_fit(path, index, adapters, layers):
    infos = [adapter.info for adapter in adapters]
    taken = [info.name for info in infos if info.name in index.names]
    if taken:
        raise InputError(f"{path / INDEX}: already has an expert {taken[0]!r}; drop it first, or rename the new one")
    bases = {entry.info.fingerprint for entry in index.entries} - {""}
    for info in infos:
        if bases and info.fingerprint not in bases | {""}:
            raise InputError(
                f"expert {info.name!r} is for the base model with fingerprint {info.fingerprint}; expected that of "
                f"{path}, {', '.join(sorted(bases))}"
            )
    if layers != index.layers:
        raise InputError(
            f"{path}: the experts to add are for {layers} layers; expected {index.layers}, as in {INDEX}"
            f"{depth.hint(layers, index.layers)}"
        )
    known = {site: found for entry in index.entries for site, found in widths(path, entry).items()}
    for (site, _), one in (module for adapter in adapters for module in adapter.modules.items()):
        if known.get(site, found := (one.a.shape[1], one.b.shape[1])) != found:
            raise InputError(
                f"{path}, site {site}: experts to add have widths (input, output) = {found}; expected {known[site]}"
            )


def _sha256(path):
    with os_errors(path, "read"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
