"""The records of a benchmark: from a file, a folder of files, or the hub, each read by the form that its keys show."""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from modjax.data.jsonl import read_json_lines
from modjax.errors import InputError
from modjax.files import is_text, is_whole, os_errors, read_json

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
LETTERS = "ABCDEFGH"


class Hub(NamedTuple):
    """A data set of the Hugging Face hub: its id, the names of its configs, and the split that is scored."""

    id: str
    configs: tuple[str | None, ...]
    split: str


class Form(NamedTuple):
    """One way in which records are written: the keys they have, and the question that one of them asks.

    `question(record)` may return None for a record that is not scored, as one of another split.
    """

    keys: tuple[str, ...]
    question: Callable[["Record"], Any]


class Record(dict):
    """A record, whose fields are checked when they are read. `where` names it in errors."""

    def __init__(self, fields: dict, where: str, group: str):
        super().__init__(fields)
        self.where, self.group = where, group  # group: the name of its file, or of its config of the hub

    def text(self, key: str) -> str:
        return self._checked(key, self[key], is_text(self[key]), "a string")

    def texts(self, key: str) -> list[str]:
        value = self[key]
        return self._checked(key, value, _is_list(value) and all(map(is_text, value)), "a list of strings")

    def index(self, key: str, size: int) -> int:
        """The index of an answer among `size` choices, written as a number, also as text, or as true and false."""
        value = self[key]
        value = int(value) if isinstance(value, bool) or (is_text(value) and value.isdecimal()) else value
        fits = is_whole(value) and 0 <= value < size
        return self._checked(key, value, fits, f"the index of one of {size} choices")

    def labelled(self, key: str, answer: str) -> tuple[list[str], int]:
        """The choices {"text": [...], "label": [...]}, and the index of the one whose label is the answer's."""
        value = self[key]
        fits = isinstance(value, dict) and all(_is_list(value.get(part)) for part in ("text", "label"))
        self._checked(key, value, fits and all(map(is_text, value["text"])), "{text: [...], label: [...]}")
        label, labels = self.text(answer).strip(), list(value["label"])
        self._checked(answer, label, label in labels, f"one of the labels {', '.join(map(str, labels))}")
        return list(value["text"]), labels.index(label)

    def _checked(self, key, value, fits, expected):
        if not fits:
            raise InputError(f"{self.where}: key {key!r} is {value!r:.80}; expected {expected}")
        return value


def _is_list(value) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0


def questions(source: str | os.PathLike | None, hub: Hub, forms: Sequence[Form]) -> list[Any]:
    """The questions of all records of a file or folder, or of the hub where `source` is None.

    Raises InputError for what cannot be read, for records of no known form, and where no question is left.
    """
    found = []
    for record in _from_hub(hub) if source is None else _from_files(pathlib.Path(source), hub):
        one = _form(record, forms).question(record)
        if one is not None:
            found.append(one)
    if not found:
        raise InputError(f"{hub.id if source is None else source}: found no questions of split {hub.split!r}")
    return found


def _form(record, forms) -> Form:
    """The first form all of whose keys the record has."""
    for form in forms:
        if all(key in record for key in form.keys):
            return form
    known = "; or ".join(", ".join(form.keys) for form in forms)
    raise InputError(f"{record.where}: has the keys {', '.join(map(str, record))}; expected {known}")


def locate(folder: str | os.PathLike, name: str) -> pathlib.Path:
    """The file or folder of a benchmark in a folder of several: NAME.jsonl, .json (also .gz), .parquet, or NAME.

    Raises InputError if there is none.
    """
    folder = pathlib.Path(folder)
    with os_errors(folder, "read"):
        for path in (folder / name, *(folder / f"{name}{suffix}" for suffix in SUFFIXES)):
            if path.exists():
                return path
    raise InputError(f"{folder}: has no {name}, as a folder or with one of {', '.join(SUFFIXES)}")


def _from_files(path: pathlib.Path, hub: Hub) -> Iterator[Record]:
    with os_errors(path, "read"):
        files = _files(path, hub) if path.is_dir() else [path]
    for file in files:
        stem = file.name.partition(".")[0]
        group = file.parent.name if stem.startswith(hub.split) else stem
        for fields, where in _fields(file):
            if not isinstance(fields, dict):
                raise InputError(f"{where}: found {type(fields).__name__}; expected an object")
            yield Record(fields, where, group)


def _files(folder: pathlib.Path, hub: Hub) -> list[pathlib.Path]:
    """The files of a folder, also of one with the hub's layout: CONFIG/test-00000-of-00001.parquet."""
    if len(hub.configs) == 1 and hub.configs[0] and (folder / hub.configs[0]).is_dir():
        folder = folder / hub.configs[0]
    files = sorted(one for one in folder.rglob("*") if one.name.endswith(SUFFIXES))
    if not files:
        raise InputError(f"{folder}: has no files; expected some that end in {', '.join(SUFFIXES)}")
    return [one for one in files if one.name.startswith(hub.split)] or files


def _fields(file: pathlib.Path) -> Iterator[tuple[Any, str]]:
    if file.suffix == ".parquet":
        rows = _parquet(file)
    elif file.name.endswith((".jsonl", ".jsonl.gz")):
        yield from read_json_lines(file)
        return
    else:
        value = read_json(file)
        rows = value.get("examples") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise InputError(f"{file}: expected a list of examples, or an object with the key 'examples'")
    yield from ((row, f"{file}, example {number}") for number, row in enumerate(rows))


def _parquet(file) -> list[dict]:
    import pyarrow  # only here: it takes a second
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{file}: cannot be read as Parquet ({' '.join(str(error).split())})") from error


def _from_hub(hub: Hub) -> Iterator[Record]:
    import datasets  # only here: it takes seconds

    for config in hub.configs:
        name = hub.id if config is None else f"{hub.id}, {config}"
        try:
            rows = datasets.load_dataset(hub.id, config, split=hub.split)
        except Exception as error:  # of the network, the hub, the cache or the data: any library underneath may raise
            said = " ".join(str(error).split())
            raise InputError(
                f"{name}: cannot be loaded from the hub ({said:.200}); expected a network, or the path of its files"
            ) from error
        for number, row in enumerate(rows):
            yield Record(row, f"{name}, {hub.split} example {number}", config or hub.id)
