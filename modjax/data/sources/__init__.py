"""Sources of tasks, one file for each form: where tasks are found, and in which form."""

import fnmatch
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from modjax import arguments
from modjax.data.sources import folder, lines, natural_instructions
from modjax.data.sources.folder import write
from modjax.data.tasks import Task, Tasks
from modjax.errors import InputError
from modjax.files import os_errors

__all__ = ["fetch", "load", "write"]

ACCEPTED = (
    '"open48", "flan", a folder with index.json, a folder with tasks/*.json (Super-NaturalInstructions), a file or a '
    "folder of .jsonl, .parquet, .arrow, .csv or .json, the id of a data set as owner/name, or a dictionary of the "
    "settings of modjax.data.sources.dataset"
)


def load(name_or_path: str | os.PathLike | Mapping[str, Any], only: Iterable[str] | None = None) -> Tasks:
    """All tasks of a named collection, a folder, a file or a data set, in the order of the source.

    Examples that lie in a task's own file or in a table are read when they are asked for (`modjax.data.lazy`).

    Args:
      name_or_path: "open48", the embedded collection; "flan", FLAN v2 as in the paper (`modjax.data.sources.flan`); a
        path in the form of `folder`, `natural_instructions`, `lines` or `dataset`; the id of a data set on the hub; or
        the settings of one as a dictionary, with "form": "flan" for files in the form of FLAN v2.
      only: names or shell patterns; a task is read if its name, its family or its group (a task folder's
        `group`) matches one of them. Files of other tasks are not opened.

    Raises:
      InputError: the name is unknown, a file is missing or malformed, or nothing matches `only`. The
        message names the file, the line or key, and what was expected there.
    """
    wanted = _matcher(only)
    if not isinstance(name_or_path, Mapping):
        arguments.path("name_or_path", name_or_path)
    with os_errors(_shown(name_or_path), "read"):
        tasks = Tasks(_read(name_or_path, wanted))
    if not tasks:
        asked = f" that match {list(only)}" if only is not None else ""
        raise InputError(f"{_shown(name_or_path)}: found no tasks{asked}; expected at least one")
    return tasks


def fetch(source: str | Mapping[str, Any]) -> list[str]:
    """Downloads the newest version of a data set of the hub to the cache of `datasets`; returns its folders there.

    Args:
      source: the id, "flan", or the settings of `modjax.data.sources.dataset` with an id.

    Raises InputError for a source that is not on the hub, and as `load`.
    """
    from modjax.data.sources import dataset

    if not isinstance(source, Mapping):
        arguments.path("source", source)
    given = {"id": source} if dataset.is_id(source) else source
    if isinstance(given, Mapping) or given == "flan":
        settings, _ = _described(given)
        if "files" not in settings:
            return dataset.fetch(settings)
    raise InputError(f"{_shown(source)}: is no data set of the hub; expected its id as owner/name")


def _shown(source) -> str:
    return arguments.shown(dict(source)) if isinstance(source, Mapping) else os.fspath(source)


def _matcher(only: Iterable[str] | None) -> Callable[..., bool]:
    """A function that tells whether any label of a task (name, family, group) matches any of the patterns."""
    if only is None:
        return lambda *labels: True
    patterns = [only] if isinstance(only, str) else arguments.texts("only", only)

    def matches(label: str, pattern: str) -> bool:
        return label == pattern or fnmatch.fnmatchcase(label, pattern)  # a name may look like a pattern

    return lambda *labels: any(matches(label, pattern) for label in labels if label for pattern in patterns)


def _read(source, wanted: Callable[..., bool]) -> Iterator[Task]:
    if isinstance(source, Mapping) or source == "flan":
        from modjax.data.sources import dataset

        settings, named = _described(source)
        return dataset.read(settings, wanted, named)
    if source == "open48":
        from modjax.data import open48

        return (task for task in open48.tasks().values() if wanted(task.name, task.family))
    path = pathlib.Path(source)
    if (path / "index.json").is_file():
        return folder.read(path, wanted)
    if (path / "tasks").is_dir():
        return natural_instructions.read(path, wanted)
    if files := lines.files(path):
        return lines.read(files, wanted)
    return _table(source, path, wanted)


def _table(source, path, wanted) -> Iterator[Task]:
    """Tasks of files in other formats, and of data sets on the hub."""
    from modjax.data.sources import dataset, table_files

    if table_files.at(path):
        return dataset.read({"files": path}, wanted, named=str)
    if dataset.is_id(source) and not path.exists() and not path.parent.is_dir():
        return dataset.read({"id": source}, wanted, named=str)
    raise InputError(f"no tasks at {os.fspath(source)!r}; expected {ACCEPTED}")


def _described(source) -> tuple[Mapping[str, Any], Callable[[str], str | None]]:
    """The settings of a data set, and the function that names its tasks."""
    from modjax.data.sources import flan

    given = {"form": "flan"} if source == "flan" else dict(source)
    form = arguments.choice("form", given.pop("form", "columns"), ("columns", "flan"))
    return (flan.settings(given), flan.training_name) if form == "flan" else (given, str)
