"""Tables of `datasets`, mapped into memory from Arrow files: tasks whose examples are rows, read when asked for."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modjax import digest
from modjax.data.columns import Columns
from modjax.data.example import Example
from modjax.data.lazy import Lazy
from modjax.data.splits import SPLITS, by_index
from modjax.data.tasks import Task
from modjax.errors import InputError

CHUNK = 1000  # rows that are read at a time
UNKNOWN = len(SPLITS)  # the code of a split that goes by the row's place in its task
SPLIT_NAMES = {name: name for name in SPLITS} | {"valid": "validation", "val": "validation", "dev": "validation"}


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which rows of each task are its examples, and in what order."""

    where: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)  # {column: values to keep}
    most: int = 0  # at most this many of each task and part, drawn with the seed; 0: all, in the order of the table
    seed: int = 42


@dataclasses.dataclass(frozen=True, eq=False)
class TableExamples(Lazy):
    """Rows of a table as examples."""

    where: str  # the table's name in errors
    table: Any  # a datasets.Dataset
    columns: Columns
    rows_n: np.ndarray  # int64[n]
    splits_n: np.ndarray  # uint8[n], each an index in SPLITS
    fingerprint: str

    @property
    def sizes(self) -> dict[str, int]:
        return {split: int(np.sum(self.splits_n == code)) for code, split in enumerate(SPLITS)}

    def __len__(self) -> int:
        return len(self.rows_n)

    def __iter__(self) -> Iterator[Example]:
        return self._read(np.arange(len(self)))

    def __getitem__(self, index):
        if isinstance(index, slice):
            return tuple(self._read(np.arange(len(self))[index]))
        return next(self._read(np.arange(len(self))[[index]]))

    def split(self, split: str) -> tuple[Example, ...]:
        return tuple(self._read(np.flatnonzero(self.splits_n == SPLITS.index(split)))) if split in SPLITS else ()

    def _read(self, at_n) -> Iterator[Example]:
        columns, features = self.columns, self.table.features
        for first in range(0, len(at_n), CHUNK):
            at = at_n[first : first + CHUNK]
            chunk = self.table[self.rows_n[at]]
            for i, (row, split) in enumerate(zip(self.rows_n[at], self.splits_n[at], strict=True)):
                values = {name: _named(features[name], chunk[name][i]) for name in columns.names}
                yield columns.example(values, SPLITS[split], f"{self.where}, row {row}")


def tasks(
    where: str,
    parts: Mapping[str | None, Any],
    columns: Columns,
    choice: Choice,
    origin: Any,
    named: Callable[[str], str | None],
) -> Iterator[Task]:
    """The tasks in the parts of a data set, in the order in which they first appear.

    Args:
      where: the name of the data set in errors.
      parts: {split, None for one that goes by place: a datasets.Dataset}
      origin: plain data that identifies the content of the data set.
      named: the name of a task that has this one in the table; None leaves it out.
    """
    import datasets

    table = datasets.concatenate_datasets(list(parts.values()))
    ends = np.cumsum([len(part) for part in parts.values()])
    fixed = [UNKNOWN if split is None else SPLITS.index(split) for split in parts]
    kept_r = _kept(table, choice.where)
    split_r = np.repeat(np.array(fixed, np.uint8), np.diff(ends, prepend=0))
    if columns.split:
        split_r = _splits(table, columns.split, where)
    for found, rows_n in _groups(table, columns.task, kept_r):
        if (name := named(found)) is not None:
            own = _drawn(rows_n, ends, choice)
            splits = split_r[own]
            splits = np.where(splits == UNKNOWN, _by_index(len(own)), splits)
            content = [origin, dataclasses.asdict(columns), _digest(own), _digest(splits)]
            yield Task(name, TableExamples(where, table, columns, own, splits, digest.of_json(content)))


@functools.lru_cache(maxsize=4)
def _first_splits(n) -> np.ndarray:
    return by_index(n)


def _by_index(n) -> np.ndarray:
    """The splits of n rows by their index, from those of a power of two, which are found once."""
    return _first_splits(1 << n.bit_length())[:n]


def _groups(table, column, kept_r) -> Iterator[tuple[str, np.ndarray]]:
    """Each value of a column with its rows among those that are kept; all under "" where there is no column."""
    if column is None:
        values, code_r = [""], np.zeros(len(table), np.int32)
    else:
        values, code_r = _coded(table, column)
    rows = np.flatnonzero(kept_r)
    own_n = code_r[rows].astype(np.min_scalar_type(len(values)))  # few bits are sorted faster
    rows = rows[np.argsort(own_n, kind="stable")]
    ends = np.cumsum(np.bincount(own_n, minlength=len(values)))
    for value, own in zip(values, np.split(rows, ends[:-1]), strict=True):
        if len(own):
            yield str(value), own


def _drawn(rows_n, ends, choice) -> np.ndarray:
    """The rows of a task that are its examples: as `Dataset.shuffle(seed)` and the first of them, part by part."""
    if not choice.most:
        return rows_n
    drawn = []
    for part in np.split(rows_n, np.searchsorted(rows_n, ends[:-1])):
        order = np.random.default_rng(choice.seed).permutation(len(part))
        drawn.append(part[order[: choice.most]])
    return np.concatenate(drawn)


def _kept(table, where) -> np.ndarray:
    """bool[rows]: whether a row has one of the given values in each of the given columns."""
    kept_r = np.ones(len(table), bool)
    for column, allowed in where.items():
        values, code_r = _coded(table, column)
        kept_r &= np.isin(code_r, [code for code, value in enumerate(values) if value in allowed])
    return kept_r


def _splits(table, column, where) -> np.ndarray:
    values, code_r = _coded(table, column)
    known = [SPLIT_NAMES.get(value) for value in values]
    if None in known:
        value = values[known.index(None)]
        raise InputError(
            f"{where}: column {column!r} has the split {value!r}; expected one of {', '.join(SPLIT_NAMES)}"
        )
    return np.array([SPLITS.index(split) for split in known], np.uint8)[code_r]


def _coded(table, column) -> tuple[list[Any], np.ndarray]:
    """The distinct values of a column in the order in which they appear, and int32[rows], which of them a row has."""
    chunks = table.data.column(column).dictionary_encode(null_encoding="encode").unify_dictionaries().chunks
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in chunks]
    values = chunks[0].dictionary.to_pylist() if chunks else []
    return [_named(table.features[column], one) for one in values], np.concatenate([*codes, np.zeros(0, np.int32)])


def _named(feature, value) -> Any:
    """The name of a class label, None for the label -1 that stands for none; other values as they are."""
    if value is None or not hasattr(feature, "int2str"):
        return value
    return feature.int2str(value) if value >= 0 else None


def _digest(array) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]
