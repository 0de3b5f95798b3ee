"""The layout of the Super-NaturalInstructions repository: `tasks/*.json` and `splits/default/*_tasks.txt`.

A file has `Definition`, `Categories` and `Instances`. The prompt of an example is `definition + "\\n\\n" + input`, its
split goes by its index. The tasks of `test_tasks.txt` are held out, those of `excluded_tasks.txt` are left out.
"""

import pathlib
from collections.abc import Callable, Iterator

from modjax.data.example import Example
from modjax.data.jsonl import field, id_of, strings
from modjax.data.lazy import FileExamples
from modjax.data.sources.folder import prefix_of
from modjax.data.splits import assign_split
from modjax.data.tasks import Task
from modjax.errors import InputError
from modjax.files import read_json, read_text, split_lines


def read(root: pathlib.Path, wanted: Callable[..., bool]) -> Iterator[Task]:
    """The tasks of the repository at `root`, or of a folder in its layout.

    A file is read for what it says of its task; its instances are read again when they are asked for.
    """
    held_out = _names(root / "splits" / "default" / "test_tasks.txt")
    excluded = _names(root / "splits" / "default" / "excluded_tasks.txt")
    for path in sorted((root / "tasks").glob("*.json")):
        if path.stem in excluded:
            continue
        content = read_json(path)
        definition = _definition(content, path)
        family = strings(content, "Categories", path)[0] if "Categories" in content else None
        if wanted(path.stem, family):
            yield Task(path.stem, FileExamples(path, _examples), family, path.stem in held_out, definition)


def _examples(path: pathlib.Path) -> Iterator[Example]:
    content = read_json(path)
    prefix = prefix_of(_definition(content, path))
    instances = field(content, "Instances", list, path)
    if not instances:
        raise InputError(f"{path}: 'Instances' is empty; expected at least one")
    for index, instance in enumerate(instances):
        where = f"{path}, instance {index}"
        source = prefix + field(instance, "input", str, where)
        outputs = strings(instance, "output", where)
        yield Example.of(source, outputs, assign_split(index), id_of(instance))


def _definition(content, path) -> str:
    return strings(content, "Definition", path)[0]


def _names(path: pathlib.Path) -> frozenset[str]:
    return frozenset(map(str.strip, split_lines(read_text(path)))) if path.is_file() else frozenset()
