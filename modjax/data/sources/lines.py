"""JSON lines of `{source, target}`, one file or a folder of them, plain or .gz.

Other names of the two keys are those of `modjax.data.columns`, as in P3's `{inputs, targets}`; a target is a text or a
list of accepted answers. Optional keys are `task`, `split`, `family`, `held_out` and `id`. Lines that name their task
may be in any file; a file whose first line names none is a task of its own, named after the file. An example without a
split gets one from its index in its task.
"""

import itertools
import pathlib
from collections.abc import Callable, Iterator

from modjax.data.columns import SOURCES, TARGETS, TASKS, first
from modjax.data.example import Example
from modjax.data.jsonl import field, id_of, read_json_lines, split_of, strings
from modjax.data.lazy import FileExamples
from modjax.data.tasks import Task
from modjax.errors import InputError

SUFFIXES = (".jsonl", ".jsonl.gz")


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of JSON lines at a path: itself, or those in the folder."""
    if path.is_file():
        return [path] if path.name.endswith(SUFFIXES) else []
    return sorted(file for file in path.glob("*") if file.name.endswith(SUFFIXES)) if path.is_dir() else []


def read(paths: list[pathlib.Path], wanted: Callable[..., bool]) -> Iterator[Task]:
    """The tasks of files; `family` and `held_out` are those of a task's first line.

    The examples of lines that name their task are in memory; those of a file of one task are read later.
    """
    named = []
    for path in paths:
        name, about = path.name.partition(".jsonl")[0], _facts_of_file(path)
        if about is None:
            named.append(path)
        elif wanted(name, about["family"]):
            yield Task(name, FileExamples(path, _examples), **about)
    yield from _named(named, wanted)


def _facts_of_file(path) -> dict | None:
    """What the first line says of the task; None if it names its task, and without lines."""
    for record, where in read_json_lines(path):
        if not isinstance(record, dict) or first(TASKS, record):
            return None
        return _facts(record, where)
    return None


def _named(paths, wanted) -> Iterator[Task]:
    """Tasks of lines that each name their task."""
    examples: dict[str, list[Example]] = {}
    about: dict[str, dict] = {}
    for record, where in itertools.chain.from_iterable(map(read_json_lines, paths)):
        name = field(record, _key(TASKS, record), str, where)
        facts = _facts(record, where)
        if wanted(name, facts["family"]):
            about.setdefault(name, facts)
            so_far = examples.setdefault(name, [])
            so_far.append(_example(record, len(so_far), where))
    return (Task(name, tuple(rows), **about[name]) for name, rows in examples.items())


def _facts(record, where) -> dict:
    family = field(record, "family", str, where, None)
    return {"family": family, "held_out": field(record, "held_out", bool, where, False)}


def _examples(path: pathlib.Path) -> Iterator[Example]:
    """The examples of a file that is one task."""
    for index, (record, where) in enumerate(read_json_lines(path)):
        if isinstance(record, dict) and (found := first(TASKS, record)):
            raise InputError(f"{where}: has the key {found!r}; the first line has none; expected it in all or in none")
        yield _example(record, index, where)


def _example(record, index, where) -> Example:
    target = _key(TARGETS, record)
    source = field(record, _key(SOURCES, record), str, where)
    many = isinstance(record.get(target), list)
    outputs = strings(record, target, where) if many else [field(record, target, str, where)]
    return Example.of(source, outputs, split_of(record, index, where), id_of(record))


def _key(known, record) -> str:
    """The key of a record among the known ones; if it has none, the one that is missed."""
    return (first(known, record) if isinstance(record, dict) else None) or known[0]
