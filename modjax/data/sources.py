"""Sources of tasks: the embedded collection, task folders, Super-NaturalInstructions, JSON lines.

Four forms are read:

* `"open48"`, the embedded collection (`modjax.data.open48`).
* A task folder: `index.json`, a list of `{task, file, definition, category, ...}`, and one JSON-lines
  file per task (plain or .gz) of `{id, split, input, outputs}`.
* The Super-NaturalInstructions layout: `tasks/*.json` with `Definition`, `Categories`, `Instances`, and
  optionally `splits/default/{test,excluded}_tasks.txt`.
* JSON lines of `{task, source, target}`, optionally with `split`, `family`, `held_out`: one file, or a
  folder of them.

In the two forms that have a definition, the prompt of an example is `definition + "\\n\\n" + input`.
An example without a split gets one from its index in its task.
"""

import fnmatch
import gzip
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

from modjax import arguments
from modjax.data.jsonl import field, read_json_lines
from modjax.data.tasks import SPLITS, Example, Task, Tasks, assign_split, checked_tasks
from modjax.errors import InputError
from modjax.files import read_json, read_text, safe_name, split_lines

ACCEPTED = (
    '"open48", a folder with index.json, a folder with tasks/*.json (Super-NaturalInstructions), '
    "or a .jsonl file (or folder of them) of {task, source, target}"
)
FILE = ".jsonl.gz"  # the suffix of the files that `write` writes
LINES_SUFFIXES = (".jsonl", ".jsonl.gz")


def load(name_or_path: str | os.PathLike, only: Iterable[str] | None = None) -> Tasks:
    """All tasks of a named collection, a folder or a file, in the order of the source.

    Args:
      name_or_path: one of the forms above.
      only: names or shell patterns; a task is read if its name, its family or its group (a task folder's
        `group`) matches one of them. Files of other tasks are not opened.

    Raises:
      InputError: the name is unknown, a file is missing or malformed, or nothing matches `only`. The
        message names the file, the line or key, and what was expected there.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise arguments.refused("name_or_path", name_or_path, ACCEPTED)
    wanted = _matcher(only)
    tasks = Tasks(_read(name_or_path, wanted))
    if not tasks:
        asked = f" that match {list(only)}" if only is not None else ""
        raise InputError(f"{name_or_path}: found no tasks{asked}; expected at least one")
    return tasks


def write(tasks: Tasks, path: str | os.PathLike) -> None:
    """Writes tasks as a task folder, from which `load` reads equal tasks.

    The definition is stored in `index.json` and removed from the prompts. If not all prompts of a task begin with it,
    they are stored whole, and the entry has `"whole_prompt": true`. A list of references that contains only the target
    is not stored.
    """
    tasks, folder = checked_tasks(tasks), pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    index: list[dict] = []
    for task in tasks.values():
        prefix = _prefix(task.definition)
        whole = not all(example.source.startswith(prefix) for example in task)
        file = safe_name(task.name, (one["file"].removesuffix(FILE) for one in index)) + FILE
        lines = [json.dumps(_record(task, i, "" if whole else prefix)) + "\n" for i in range(len(task))]
        # The gzip header contains mtime, which is set to 0 so that equal tasks give equal bytes.
        (folder / file).write_bytes(gzip.compress("".join(lines).encode(), mtime=0))
        entry = {"task": task.name, "file": file, "definition": task.definition, "category": task.family}
        index.append(entry | {"held_out": task.held_out, "whole_prompt": whole})
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")


def _record(task: Task, index: int, prefix: str) -> dict:
    example = task[index]
    outputs = [example.target, *(a for a in example.references if a != example.target)]
    return {
        "id": f"{task.name}-{index}",
        "split": example.split,
        "input": example.source.removeprefix(prefix),
        "outputs": outputs,
    }


def _prefix(definition: str) -> str:
    return f"{definition}\n\n" if definition else ""


def _matcher(only: Iterable[str] | None) -> Callable[..., bool]:
    """A function that tells whether any label of a task (name, family, group) matches any of the patterns."""
    if only is None:
        return lambda *labels: True
    patterns = [only] if isinstance(only, str) else arguments.texts("only", only)

    def matches(label: str, pattern: str) -> bool:
        return label == pattern or fnmatch.fnmatchcase(label, pattern)  # a name may look like a pattern

    return lambda *labels: any(matches(label, pattern) for label in labels if label for pattern in patterns)


def _read(name_or_path: str | os.PathLike, wanted: Callable[..., bool]) -> Iterator[Task]:
    if name_or_path == "open48":
        from modjax.data import open48

        return (task for task in open48.tasks().values() if wanted(task.name, task.family))
    path = pathlib.Path(name_or_path)
    if path.is_file() and path.name.endswith(LINES_SUFFIXES):
        return _read_lines([path], wanted)
    if (path / "index.json").is_file():
        return _read_folder(path, wanted)
    if (path / "tasks").is_dir():
        return _read_natural_instructions(path, wanted)
    files = sorted(f for f in path.glob("*") if f.name.endswith(LINES_SUFFIXES)) if path.is_dir() else []
    if files:
        return _read_lines(files, wanted)
    raise InputError(f"no tasks at {os.fspath(name_or_path)!r}; expected {ACCEPTED}")


def _read_folder(folder: pathlib.Path, wanted: Callable[..., bool]) -> Iterator[Task]:
    """Tasks of a folder with `index.json`; `held_out`, or an `official_split` other than train, holds a task out."""
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
        prefix = "" if field(entry, "whole_prompt", bool, where, False) else _prefix(definition)
        official = field(entry, "official_split", str, where, "train")
        yield Task(
            name=name,
            examples=_examples(folder / field(entry, "file", str, where), prefix),
            family=family,
            held_out=field(entry, "held_out", bool, where, official != "train"),
            definition=definition,
        )


def _examples(path: pathlib.Path, prefix: str) -> tuple[Example, ...]:
    """The examples of one task, from lines of `{split, input, outputs}`."""
    examples = []
    for index, (record, where) in enumerate(read_json_lines(path)):
        outputs = _strings(record, "outputs", where)
        source = prefix + field(record, "input", str, where)
        examples.append(_example(source, outputs, _split(record, index, where)))
    if not examples:
        raise InputError(f"{path}: found no examples; expected at least one line")
    return tuple(examples)


def _read_natural_instructions(root: pathlib.Path, wanted: Callable[..., bool]) -> Iterator[Task]:
    """Tasks in the layout of the original repository; its test tasks are held out, its excluded tasks are skipped."""
    held_out = _names(root / "splits" / "default" / "test_tasks.txt")
    excluded = _names(root / "splits" / "default" / "excluded_tasks.txt")
    for path in sorted((root / "tasks").glob("*.json")):
        if path.stem in excluded:
            continue
        content = read_json(path)
        definition = _strings(content, "Definition", path)[0]
        family = _strings(content, "Categories", path)[0] if "Categories" in content else None
        if not wanted(path.stem, family):
            continue
        examples = []
        for index, instance in enumerate(field(content, "Instances", list, path)):
            where = f"{path}, instance {index}"
            source = _prefix(definition) + field(instance, "input", str, where)
            examples.append(_example(source, _strings(instance, "output", where), assign_split(index)))
        if not examples:
            raise InputError(f"{path}: 'Instances' is empty; expected at least one")
        yield Task(path.stem, tuple(examples), family, path.stem in held_out, definition)


def _read_lines(paths: list[pathlib.Path], wanted: Callable[..., bool]) -> Iterator[Task]:
    """Tasks from lines of `{task, source, target}`; `family` and `held_out` are those of a task's first line."""
    examples: dict[str, list[Example]] = {}
    about: dict[str, dict] = {}
    for path in paths:
        for record, where in read_json_lines(path):
            name = field(record, "task", str, where)
            family = field(record, "family", str, where, None)
            if not wanted(name, family):
                continue
            so_far = examples.setdefault(name, [])
            held_out = field(record, "held_out", bool, where, False)
            about.setdefault(name, {"family": family, "held_out": held_out})
            source, target = field(record, "source", str, where), field(record, "target", str, where)
            so_far.append(Example(source, target, _split(record, len(so_far), where)))
    return (Task(name, tuple(rows), **about[name]) for name, rows in examples.items())


def _example(source: str, outputs: list[str], split: str) -> Example:
    references = tuple(dict.fromkeys(outputs))
    return Example(source, outputs[0], split, references if len(references) > 1 else ())


def _strings(record: dict, key: str, where) -> list[str]:
    strings = field(record, key, list, where)
    if not strings or not all(isinstance(string, str) for string in strings):
        raise InputError(f"{where}: key {key!r} is {strings!r}; expected a list of one or more strings")
    return [arguments.text(f"{where}: key {key!r}", string) for string in strings]


def _split(record: dict, index: int, where: str) -> str:
    split = field(record, "split", str, where, None) or assign_split(index)
    if split not in SPLITS:
        raise InputError(f"{where}: key 'split' is {split!r}; expected one of {SPLITS}")
    return split


def _names(path: pathlib.Path) -> frozenset[str]:
    return frozenset(map(str.strip, split_lines(read_text(path)))) if path.is_file() else frozenset()
