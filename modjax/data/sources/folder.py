"""Task folders, modjax's own form: `index.json` and one file of JSON lines per task.

`index.json` is a list of `{task, file, definition, category, ...}`, a file (plain or .gz) has lines of `{id, split,
input, outputs}`. The prompt of an example is `definition + "\\n\\n" + input`. An example without a split gets one from
its index in its task. `held_out`, or an `official_split` other than train, holds a task out.
"""

import functools
import gzip
import json
import os
import pathlib
from collections.abc import Callable, Iterator

from modjax import arguments
from modjax.data.example import Example
from modjax.data.jsonl import field, id_of, read_json_lines, split_of, strings
from modjax.data.lazy import FileExamples
from modjax.data.tasks import Task, Tasks, checked_tasks
from modjax.errors import InputError
from modjax.files import os_errors, read_json, safe_name

FILE = ".jsonl.gz"  # the suffix of the files that `write` writes


def read(folder: pathlib.Path, wanted: Callable[..., bool]) -> Iterator[Task]:
    """The tasks of a folder."""
    index_path = folder / "index.json"
    entries = read_json(index_path)
    if not isinstance(entries, list):
        raise InputError(f"{index_path}: found {type(entries).__name__}; expected a list of tasks")
    for number, entry in enumerate(entries):
        where = f"{index_path}, entry {number}"
        name = field(entry, "task", str, where)
        family = field(entry, "cluster", str, where, None) or field(entry, "category", str, where, None)
        if not wanted(name, family, field(entry, "group", str, where, None)):
            continue
        definition = field(entry, "definition", str, where, "")
        prefix = "" if field(entry, "whole_prompt", bool, where, False) else prefix_of(definition)
        official = field(entry, "official_split", str, where, "train")
        path = folder / field(entry, "file", str, where)
        yield Task(
            name=name,
            examples=FileExamples(path, functools.partial(_examples, prefix=prefix)),
            family=family,
            held_out=field(entry, "held_out", bool, where, official != "train"),
            definition=definition,
        )


def prefix_of(definition: str) -> str:
    """What prompts begin with."""
    return f"{definition}\n\n" if definition else ""


def write(tasks: Tasks, path: str | os.PathLike) -> None:
    """Writes tasks as a task folder, from which `load` reads equal tasks.

    The definition is stored in `index.json` and removed from the prompts. If not all prompts of a task begin with it,
    they are stored whole, and the entry has `"whole_prompt": true`. A list of references that contains only the target
    is not stored. The examples of one task at a time are in memory.
    """
    tasks, folder = checked_tasks(tasks), arguments.path("path", path)
    with os_errors(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    index: list[dict] = []
    for task in tasks.values():
        prefix = prefix_of(task.definition)
        examples = tuple(task)
        whole = not all(example.source.startswith(prefix) for example in examples)
        file = safe_name(task.name, (one["file"].removesuffix(FILE) for one in index)) + FILE
        own = "" if whole else prefix
        lines = [json.dumps(_record(one, f"{task.name}-{i}", own)) + "\n" for i, one in enumerate(examples)]
        # The gzip header contains mtime, which is set to 0 so that equal tasks give equal bytes.
        (folder / file).write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
        entry = {"task": task.name, "file": file, "definition": task.definition, "category": task.family}
        index.append(entry | {"held_out": task.held_out, "whole_prompt": whole})
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


def _record(example: Example, id: str, prefix: str) -> dict:
    outputs = [example.target, *(a for a in example.references if a != example.target)]
    source = example.source.removeprefix(prefix)
    return {"id": example.id or id, "split": example.split, "input": source, "outputs": outputs}


def _examples(path: pathlib.Path, prefix: str) -> Iterator[Example]:
    """The examples of one task."""
    index = -1
    for index, (record, where) in enumerate(read_json_lines(path)):
        outputs = strings(record, "outputs", where)
        source = prefix + field(record, "input", str, where)
        yield Example.of(source, outputs, split_of(record, index, where), id_of(record))
    if index < 0:
        raise InputError(f"{path}: found no examples; expected at least one line")
