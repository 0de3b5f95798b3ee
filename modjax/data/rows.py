"""Rows of tokens as forests of prefix trees: what several examples begin with is in a row once."""

import bisect
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from modjax.data.tokenize import Encoded

OPEN = 8  # rows that an example may be added to; the fullest is closed when one more is needed


class Rows(NamedTuple):
    """Rows of prefix trees, written depth first. In training batches the fields have leading axes [E, B] in place of
    [rows].

    A token reads its own path: query i may read key j exactly when j <= i < ends[j]. The M targets of a row are listed,
    not masked: the hidden state at `at` predicts the token `labels`, and several labels may be read at one token.
    """

    tokens: np.ndarray  # int32[rows, T]
    positions: np.ndarray  # int32[rows, T], depth in the tree, from 0
    ends: np.ndarray  # int32[rows, T], index in the row just after the token's subtree; 0 for padding
    at: np.ndarray  # int32[rows, M], the token before each target
    labels: np.ndarray  # int32[rows, M], the target tokens
    weights: np.ndarray  # float32[rows, M], 1 for targets, 0 for padding
    task: np.ndarray  # int32[rows, 1], index of the task of all examples in the row; 0 unless rows are packed by task

    @property
    def n_rows(self) -> int:
        return self.tokens.shape[0]


def pack(examples: Sequence[Encoded], length: int, seed: int = 0, task: int = 0, split: int | None = None) -> Rows:
    """Examples in rows of `length` tokens, filled in a random order; no example is divided between rows.

    M is the largest number of targets in a row.

    Args:
      seed: of the order.
      task: the value of the field `task`.
      split: examples up to this length do not share tokens with longer ones; see `forests`.
    """
    order = np.random.default_rng(seed).permutation(len(examples)).tolist()
    members = forests(examples, length, order, split)
    return stacked(filled([examples[i] for i in own], length, task, split) for own in members)


def forests(
    examples: Sequence[Encoded], length: int, order: Iterable[int] | None = None, split: int | None = None
) -> list[list[int]]:
    """The indices of the examples in each row, in the order in which the row has them.

    Each example goes to the open row that has most of its tokens already, among those with room for the others.

    Args:
      order: in which examples are added to rows; by default as they are given.
      split: examples that read at most this many tokens do not share tokens with those that read more: with rotary
        factors that depend on the length of an example (longrope), the same tokens get other keys.
    """
    done, rows = [], []
    for i in range(len(examples)) if order is None else order:
        path = _path(examples[i], split)
        costs = [row.cost(path) for row in rows]
        fits = [at for at, row in enumerate(rows) if costs[at] <= row.room]
        if fits:
            rows[min(fits, key=lambda at: costs[at])].add(i, path)
            continue
        if len(rows) == OPEN:
            done.append(rows.pop(min(range(OPEN), key=lambda at: rows[at].room)))
        rows.append(_Forest(length))
        rows[-1].add(i, path)
    return [row.members for row in done + rows]


def filled(examples: Sequence[Encoded], length: int, task: int = 0, split: int | None = None) -> Rows:
    """One row, the fields without their first axis, of the examples that `forests` put in it, in its order."""
    tokens, positions, ends = (np.zeros(length, np.int32) for _ in range(3))
    at, cursor, last, place = [], 0, None, np.zeros(0, np.int32)
    for example in examples:
        path = _path(example, split)
        common = 0 if last is None else _common(last, path)
        ends[place[common:]] = cursor
        end = cursor + len(path.tokens) - common
        tokens[cursor:end] = path.tokens[common:]
        positions[cursor:end] = np.arange(common, len(path.tokens))
        place = np.concatenate([place[:common], np.arange(cursor, end, dtype=np.int32)])
        at.append(place[example.n_prompt - 1 : len(example.tokens) - 1])
        cursor, last = end, path
    ends[place] = cursor
    labels = np.concatenate([example.tokens[example.n_prompt :] for example in examples]).astype(np.int32)
    return Rows(tokens, positions, ends, np.concatenate(at), labels, np.ones(len(labels), np.float32), np.int32([task]))


def empty(length: int) -> Rows:
    """One row of `length` tokens that are all padding, without targets."""
    tokens, targets = np.zeros((1, length), np.int32), np.zeros((1, 0), np.int32)
    return Rows(tokens, tokens, tokens, targets, targets, np.zeros((1, 0), np.float32), np.zeros((1, 1), np.int32))


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, padded to the largest number of targets."""
    n_targets = max(part.labels.shape[1] for part in parts)
    padded = [pad_targets(part, n_targets) for part in parts]
    return Rows(*(np.concatenate(fields) for fields in zip(*padded, strict=True)))


def stacked(rows: Iterable[Rows]) -> Rows:
    """Rows, or batches of them, along a new first axis, padded to the largest number of targets."""
    rows = list(rows)
    n_targets = max(row.labels.shape[-1] for row in rows)
    padded = [pad_targets(row, n_targets) for row in rows]
    return Rows(*(np.stack(fields) for fields in zip(*padded, strict=True)))


def pad_targets(rows: Rows, n_targets: int) -> Rows:
    """The rows, padded to `n_targets` targets each."""

    def pad(array):
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, n_targets - array.shape[-1])])

    return rows._replace(at=pad(rows.at), labels=pad(rows.labels), weights=pad(rows.weights))


class _Path(NamedTuple):
    """The tokens that an example reads: all but its last one, after which nothing is predicted."""

    key: bytes  # paths in the order of their keys are in the depth-first order of their tree
    tokens: np.ndarray  # int32[n]


def _path(example: Encoded, split: int | None) -> _Path:
    tokens = example.tokens[: max(example.n_prompt, len(example.tokens) - 1)]
    long = split is not None and len(tokens) > split
    return _Path(bytes([long]) + tokens.astype(">u4").tobytes(), tokens)


def _common(one: _Path, two: _Path) -> int:
    """The number of tokens that two paths begin with."""
    if one.key[0] != two.key[0]:
        return 0
    size = min(len(one.tokens), len(two.tokens))
    differ = one.tokens[:size] != two.tokens[:size]
    return int(differ.argmax()) if differ.any() else size


class _Forest:
    """One row while it is filled: its paths, in depth-first order."""

    def __init__(self, length: int):
        self.room = length
        self.members: list[int] = []
        self.paths: list[_Path] = []
        self.keys: list[bytes] = []

    def cost(self, path: _Path) -> int:
        """The tokens that a path would add to the row."""
        return len(path.tokens) - max((_common(path, near) for near in self._neighbours(path)), default=0)

    def add(self, member: int, path: _Path) -> None:
        self.room -= self.cost(path)
        at = bisect.bisect_right(self.keys, path.key)
        self.members.insert(at, member)
        self.paths.insert(at, path)
        self.keys.insert(at, path.key)

    def _neighbours(self, path) -> Iterator[_Path]:
        """The paths before and after this one: no other has more of its first tokens."""
        at = bisect.bisect_right(self.keys, path.key)
        yield from self.paths[max(at - 1, 0) : at + 1]
