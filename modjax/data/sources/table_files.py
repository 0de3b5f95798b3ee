"""Local files of tables, Parquet, Arrow, CSV, JSON and JSON lines: which there are, and which split each has."""

import glob
import itertools
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from modjax import arguments, digest
from modjax.data.table import SPLIT_NAMES
from modjax.errors import InputError

KINDS = {"parquet": "parquet", "arrow": "arrow", "csv": "csv", "json": "json", "jsonl": "json"}  # {suffix: its reader}
IN_FOLDERS = (".parquet", ".arrow", ".csv", ".json", ".json.gz")  # those that are read without settings
BESIDE = ("state.json", "dataset_info.json")
WHOLE = "rows"  # the part of files that name no split
PATHS = "a path, a shell pattern, a list of them, or {split: such}"

_SPLIT = re.compile(f"({'|'.join(SPLIT_NAMES)})(?![a-z])")  # a name that begins with a split
_PART = re.compile(rf"{_SPLIT.pattern}|data-\d")  # one that says nothing of the task
Files = dict[str, list[str]]  # {split or WHOLE: paths}


def at(path: pathlib.Path) -> bool:
    """Whether there is a table at a path: a file, files in a folder, or what `DatasetDict.save_to_disk` wrote there."""
    return path.is_file() and path.name.endswith(IN_FOLDERS) or _is_saved(path) or bool(_in_folder(path))


def found(value: Any) -> Files:
    """The files that a setting names. Raises InputError for a name without files, and for files of several formats."""
    if isinstance(value, str | os.PathLike) and _is_saved(pathlib.Path(value)):
        value = {one.name: one for one in sorted(pathlib.Path(value).iterdir()) if one.is_dir()}
    if isinstance(value, Mapping):
        files = {_split(name): _expanded(one) for name, one in value.items()}
    else:
        files = _by_split(_expanded(value))
    if len(kinds := {_kind(path) for path in listed(files)}) > 1:
        raise InputError(f"files: found {' and '.join(sorted(kinds))}; expected files of one format")
    return files


def listed(files: Files) -> list[str]:
    """All paths."""
    return list(itertools.chain.from_iterable(files.values()))


def kind(files: Files) -> str:
    """The reader of `datasets` for these files."""
    return _kind(listed(files)[0])


def content(files: Files) -> str:
    """The digest of all files and their splits; each file is read."""
    return digest.of_json({split: [digest.of_file(pathlib.Path(path)) for path in own] for split, own in files.items()})


def title(files: Files) -> str:
    """What the files are called together: one by its own name, parts of a whole by that of their folder."""
    paths = list(map(os.path.abspath, listed(files)))
    name = os.path.basename(paths[0]).partition(".")[0]
    if len(paths) == 1 and not _PART.match(name.lower()):
        return name
    return os.path.basename(os.path.commonpath([os.path.dirname(path) for path in paths]))


def _expanded(value) -> list[str]:
    paths: list[str] = []
    for path in arguments.paths("files", value):
        own = _in_folder(path) if path.is_dir() else sorted(glob.glob(str(path), recursive=True)) or [str(path)]
        if not own or not all(map(os.path.isfile, own)):
            raise InputError(f"files: {arguments.shown(str(path))} names no file; expected {PATHS}")
        paths += own
    if not paths:
        raise arguments.refused("files", value, PATHS)
    return paths


def _is_saved(path: pathlib.Path) -> bool:
    return (path / "dataset_dict.json").is_file()


def _in_folder(path: pathlib.Path) -> list[str]:
    """The files in a folder; those that `datasets` writes beside its own are left out."""
    return [str(one) for one in sorted(path.glob("*")) if one.name.endswith(IN_FOLDERS) and one.name not in BESIDE]


def _by_split(paths: list[str]) -> Files:
    """The files by the split that each name begins with, as in test-00000-of-00001.parquet, if all do.

    Files for training alone name no split: those of their rows go by place.
    """
    splits = [_SPLIT.match(os.path.basename(path).lower()) for path in paths]
    if not all(splits) or {SPLIT_NAMES[split[1]] for split in splits} == {"train"}:
        return {WHOLE: paths}
    files: Files = {}
    for path, split in zip(paths, splits, strict=True):
        files.setdefault(SPLIT_NAMES[split[1]], []).append(path)
    return files


def _split(name) -> str:
    return SPLIT_NAMES[arguments.choice("files: the name of a split", name, SPLIT_NAMES)]


def _kind(path) -> str:
    suffix = path.lower().removesuffix(".gz").rpartition(".")[2]
    if suffix not in KINDS:
        raise InputError(f"files: {path!r}; expected a file that ends in {', '.join(KINDS)}, or those and .gz")
    return KINDS[suffix]
