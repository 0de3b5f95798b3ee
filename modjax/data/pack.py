"""Packing of several short examples into one row, separated by segment ids, so that there is little padding."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from modjax.data.tokenize import Encoded


class Rows(NamedTuple):
    """Packed rows. In training batches the fields have leading axes [E, B] in place of [rows].

    The M targets of a row are listed, not masked: the hidden state at position `at` predicts the token `labels`.
    """

    tokens: np.ndarray  # int32[rows, T]
    positions: np.ndarray  # int32[rows, T], from 0 in each segment
    segments: np.ndarray  # int32[rows, T], 1, 2, ... for the examples in a row, 0 for padding
    at: np.ndarray  # int32[rows, M], the position before each target
    labels: np.ndarray  # int32[rows, M], the target tokens
    weights: np.ndarray  # float32[rows, M], 1 for targets, 0 for padding
    task: np.ndarray  # int32[rows, 1], index of the task of all examples in the row; 0 unless rows are packed by task

    @property
    def n_rows(self) -> int:
        return self.tokens.shape[0]


def pack(examples: Sequence[Encoded], length: int, task: int = 0) -> Rows:
    """Packs examples into rows of `length` tokens by best fit, longest first; no example is split between rows.

    M is the largest number of targets in a row. task: value of the field `task`.
    """
    bins = _best_fit([len(example.tokens) for example in examples], length)
    filled = [_fill([examples[i] for i in members], length, task) for members in bins]
    n_targets = max(len(row.labels) for row in filled)
    return stack(pad_targets(row, n_targets) for row in filled)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, padded to the largest number of targets."""
    n_targets = max(part.labels.shape[1] for part in parts)
    padded = [pad_targets(part, n_targets) for part in parts]
    return Rows(*(np.concatenate(fields) for fields in zip(*padded, strict=True)))


def stack(rows: Iterable[Rows]) -> Rows:
    """Stacks rows (or batches of them) of equal shape along a new first axis."""
    return Rows(*(np.stack(fields) for fields in zip(*rows, strict=True)))


def pad_targets(rows: Rows, n_targets: int) -> Rows:
    """The rows, padded to `n_targets` targets each."""

    def pad(array):
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, n_targets - array.shape[-1])])

    return rows._replace(at=pad(rows.at), labels=pad(rows.labels), weights=pad(rows.weights))


def _best_fit(lengths, capacity):
    """Indices in each bin: an item goes to the bin with the least free space that is still enough for it."""
    by_space: dict[int, list[list[int]]] = {}
    bins = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        space = min((s for s in by_space if s >= lengths[i]), default=None)
        if space is None:
            members, space = [], capacity
            bins.append(members)
        else:
            members = by_space[space].pop()
            if not by_space[space]:
                del by_space[space]
        members.append(i)
        by_space.setdefault(space - lengths[i], []).append(members)
    return bins


def _fill(examples, length, task):
    tokens, positions, segments = (np.zeros(length, np.int32) for _ in range(3))
    at, start = [], 0
    for segment, example in enumerate(examples, 1):
        end = start + len(example.tokens)
        tokens[start:end] = example.tokens
        positions[start:end] = np.arange(end - start)
        segments[start:end] = segment
        at.append(np.arange(start + example.n_prompt - 1, end - 1, dtype=np.int32))
        start = end
    at = np.concatenate(at)
    weights, task = np.ones(len(at), np.float32), np.full(1, task, np.int32)
    return Rows(tokens, positions, segments, at, tokens[at + 1], weights, task)
