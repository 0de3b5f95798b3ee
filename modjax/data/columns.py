"""Columns: where the parts of an example are in the rows of a table, and the names that they usually have."""

import dataclasses
import string
from collections.abc import Collection, Mapping
from typing import Any

from modjax import arguments
from modjax.data.example import Example
from modjax.errors import InputError

# The first name that is there is read. P3 has texts beside token ids, in columns that end in _pretokenized.
SOURCES = ("source", "inputs_pretokenized", "inputs", "input", "prompt", "question", "instruction")
TARGETS = ("target", "targets_pretokenized", "targets", "outputs", "output", "completion", "answer", "response")
TASKS = ("task", "task_name")
SPLITTING = ("split",)


def first(known: Collection[str], there: Collection[str]) -> str | None:
    """The first known name that is there."""
    return next((name for name in known if name in there), None)


@dataclasses.dataclass(frozen=True)
class Columns:
    """`source` and `target` are a column, or a text with columns in braces, as "{passage}\\nQuestion: {question}".

    A column may hold texts, numbers or class labels, which are read by name; that of the target also lists of accepted
    answers. A column within another is named as in `answers.text`.
    """

    source: str
    target: str
    task: str | None = None  # None: all rows are one task
    split: str | None = None  # None: that of the part of the data set, or else by the row's place in its task
    id: str | None = None

    def __post_init__(self):
        arguments.check_fields(self, ("source", "target"), arguments.title)
        arguments.check_fields(self, ("task", "split", "id"), arguments.optional(arguments.title))

    @classmethod
    def of(cls, given: Mapping[str, str], there: Collection[str], where: str) -> "Columns":
        """Those that are given; the others by their usual names, if they are there.

        Raises InputError naming `where` for a name that is not there, and if no source or no target is found.
        """
        usual = {"source": SOURCES, "target": TARGETS, "task": TASKS, "split": SPLITTING}
        found = {part: first(known, there) for part, known in usual.items()} | dict(given)
        listed = f"its columns are {', '.join(there)}"
        for part in ("source", "target"):
            if found[part] is None:
                raise InputError(f"{where}: {listed}; expected one named {part!r}, or columns.{part}=COLUMN")
        columns = arguments.made(cls, found)
        for name in columns.names:
            if name not in there and name.partition(".")[0] not in there:
                raise InputError(f"{where}: has no column {name!r}; {listed}")
        return columns

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        texts = [name for text in (self.source, self.target) for name in _blanks(text)]
        return list(dict.fromkeys([*texts, *filter(None, (self.task, self.split, self.id))]))

    def example(self, values: Mapping[str, Any], split: str, where: str) -> Example:
        """The example in a row. Raises InputError naming `where` for a value that is no text."""
        identity = "" if self.id is None else str(values[self.id])
        return Example.of(_text(self.source, values, where), _outputs(self.target, values, where), split, identity)


def _blanks(text: str) -> list[str]:
    """The columns that a text names in braces; the text itself if it has none, because it is a column."""
    if "{" not in text:
        return [text]
    try:
        return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise InputError(f"columns: {text!r}: {error}; expected columns in braces") from error


def _text(text, values, where) -> str:
    if "{" not in text:
        return _one(values[text], text, where)
    parts = string.Formatter().parse(text)
    return "".join(before + ("" if name is None else _one(values[name], name, where)) for before, name, _, _ in parts)


def _outputs(text, values, where) -> list[str]:
    found = values.get(text)
    if not isinstance(found, list):
        return [_text(text, values, where)]
    if not found:
        raise InputError(f"{where}: column {text!r} is []; expected at least one accepted answer")
    return [_one(one, text, where) for one in found]


def _one(value, column, where) -> str:
    if isinstance(value, str | int | float) and value == value:  # what a column of numbers lacks is not a number
        return str(value)
    raise InputError(f"{where}: column {column!r} is {value!r}; expected a text")
