"""`modjax library`: lists the experts of a saved library, and adds and drops experts in place."""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from absl.flags import DEFINE_multi_string, DEFINE_string, FlagValues

from modjax.cli import session
from modjax.cli.columns import aligned
from modjax.cli.terminal import on_one_line
from modjax.errors import InputError
from modjax.experts import index as index_file
from modjax.experts import store
from modjax.experts.forms import form_of
from modjax.experts.index import Index
from modjax.experts.library import Library
from modjax.routing.base import Router, check, load_router
from modjax.routing.editing import extended, n_experts, restricted
from modjax.studies import catalogue

NEEDS = ("path",)  # flags that must be given
EXAMPLE = "modjax library --path=workdir/private/library --add=ADAPTER_DIR"
TASKS = 48  # characters of the column


def define_flags(values: FlagValues) -> None:
    DEFINE_string("path", None, "the folder of the library", values)
    DEFINE_multi_string("add", [], "a PEFT adapter, mttl experts or a library, whose experts to add", values)
    DEFINE_multi_string("drop", [], "the name of an expert to drop", values)
    DEFINE_string("router", None, "the file of a router of the library, changed with it", values)


@session.first_alone
def run(config, workdir, flags) -> None:
    """Drops the experts --drop, adds those of the folders --add, and prints the experts of --path after that.

    With --router, the file of a router of the library, the router is changed too. After a kill, run the command again.
    """
    path = pathlib.Path(flags.path)
    if flags.router and not (flags.add or flags.drop):
        raise InputError(f"--router={flags.router} is changed with the library; expected --add or --drop too")
    if flags.drop:
        _drop(path, flags.drop, flags.router)
    for source in flags.add:
        _add(path, pathlib.Path(source), flags.router)
    for line in table(path, index_file.read(path)):
        print(line)


def table(path: pathlib.Path, index: Index) -> list[str]:
    """A line of headings and a line for each expert; the last column is there if the training of one failed."""
    rows = [("expert", "tasks", "rank", "alpha", "size", "training")]
    for entry in index.entries:
        info = entry.info
        size = sum(file.stat().st_size for file in (path / entry.folder).glob("*"))
        name, tasks = on_one_line(info.name), _short(on_one_line(", ".join(info.tasks)))
        failed = f"failed at step {info.failed}" if info.failed else ""
        rows.append((name, tasks, str(info.rank), f"{info.alpha:g}", f"{size / 1e6:.2f} MB", failed))
    return aligned(rows, numbers=(2, 3, 4))


def _short(text):
    return text if len(text) <= TASKS else f"{text[: TASKS - 3]}..."


def _drop(path, names, file):
    index = index_file.read(path)
    kept = index.without(names)
    if file:
        # The router is written first: if it is already the shorter one, an earlier command was killed in between.
        router = load_router(file)
        if n_experts(router) == len(kept.entries):
            _builder(router, Library.load(path)[kept.names], file)
        else:
            _check_count(file, router, len(index.entries))
            restricted(router, [i for i, entry in enumerate(index.entries) if entry in kept.entries]).save(file)
    store.drop(path, names)


def _add(path, source, file):
    added = _experts(source, index_file.read(path).layers)
    if not file:
        _append(path, added)
        return
    router, saved = load_router(file), Library.load(path)
    earlier = len(saved) - len(added)
    if saved.names[-len(added) :] == added.names and n_experts(router) == earlier:
        # An earlier command was killed after it wrote the library.
        longer = extended(router, _builder(router, saved[:earlier], file)(saved[earlier:]))
    else:
        longer = extended(router, _builder(router, saved, file)(added))
        _append(path, added)
    longer.save(file)


def _append(path, library):
    store.add(path, list(library.adapters()), library.layers)


def _experts(source, layers) -> Library:
    form = form_of(source)
    if form == "library":
        return Library.load(source)
    return Library.from_mttl(source, layers) if form == "mttl" else Library.from_peft(source, layers)


def _builder(router: Router, library: Library, file: str) -> Callable[[Library], Router]:
    """The function that built the router, with its settings.

    Raises InputError unless it gives this router again for the library.
    """
    _check_count(file, router, len(library))
    check(router, library)
    kind = type(router).__name__
    build = catalogue.of_experts_alone(kind.lower())
    settings = {
        field.name: getattr(router, field.name)
        for field in dataclasses.fields(router)
        if field.metadata.get("static") and build and field.name in inspect.signature(build).parameters
    }
    if not build or not _same(build(library, **settings), router):
        raise InputError(
            f"{file}: the {kind} router cannot be rebuilt from the experts and its settings, as when it was "
            "calibrated; build one for the added experts the same way and join them by modjax.routing.extended"
        )
    return functools.partial(build, **settings)


def _same(one, other):
    alike = jax.tree.structure(one) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=False)
    return alike and all(np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=1e-5) for a, b in pairs)


def _check_count(file, router, count):
    if n_experts(router) != count:
        raise InputError(f"{file}: the router is for {n_experts(router)} experts; the library has {count}")
