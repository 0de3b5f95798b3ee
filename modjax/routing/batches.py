"""Batches of examples as the decoder reads them, and what routers read of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from modjax.data.rows import Rows, filled, forests, pad_targets, stacked
from modjax.data.tokenize import Encoded
from modjax.models import padding
from modjax.models.padding import batched_by_length, bucket, finer_bucket, fitting, shared
from modjax.routing.base import Bound, Context
from modjax.routing.prompt import PromptRouter, PromptRows

LENGTH = 1024  # tokens of a row that many short examples share; longer examples share rows of twice their length


class Member(NamedTuple):
    """The place of an example in its batch."""

    example: int  # its index among all examples
    row: int
    targets: slice  # of the M targets of the row


class Batch(NamedTuple):
    """Rows of examples; the last rows may be empty."""

    members: list[Member]
    rows: Rows
    prompts: PromptRows | None  # the prompt of each row, for a router of prompts
    context: Context


def packed(
    examples: Sequence[Encoded],
    bound: Bound | None = None,
    choices: Sequence[int | None] | None = None,
    batch: int = 32,
    split: int | None = None,
    shards: int = 1,
) -> list[Batch]:
    """All examples in rows of prefix trees that share what examples begin with, in batches of few different shapes.

    Examples share a row only if routers give them the same weights of experts: for the base model and routers of
    tokens any examples, for a router with a choice per example those of one choice, for a router of prompts those of
    one prompt.

    Args:
      choices: the choice of each example, for a router that needs one.
      batch: a batch has room for this many examples of the greatest length, at most.
      split: see `modjax.data.rows.forests`.
      shards: the devices that share the rows of a batch; see `Decoder.row_shards`.
    """
    longest = bucket(max((len(one.tokens) for one in examples), default=1))
    capacity = min(max(LENGTH, 2 * longest), batch * longest)
    found: dict[int, list[tuple[list[int], Rows]]] = {}
    for own in _alike(examples, bound, choices):
        for places in forests([examples[i] for i in own], capacity, split=split):
            ids = [own[place] for place in places]
            row = _shortened(filled([examples[i] for i in ids], capacity, split=split))
            found.setdefault(len(row.tokens), []).append((ids, row))
    batches = []
    for length, placed in sorted(found.items()):
        n_targets = finer_bucket(max(len(row.labels) for _, row in placed))
        most = batch * longest // length
        n_rows = shared(_rows_at_once(len(placed), _at_once(bound, most)), shards)
        for first in range(0, len(placed), n_rows):
            batches.append(_batch(examples, placed[first : first + n_rows], n_rows, n_targets, bound, choices))
    return batches


def one_each(
    examples: Sequence[Encoded],
    bound: Bound | None,
    choices: Sequence[int | None] | None,
    batch: int,
    shards: int = 1,
) -> Iterator[Batch]:
    """Batches of at most `batch` rows of one example each, examples of similar length together."""
    n_rows = fitting(_at_once(bound, batch), len(examples), shards)
    for ids in batched_by_length([len(one.tokens) for one in examples], n_rows):
        length = bucket(max(len(examples[i].tokens) for i in ids))
        placed = [([i], filled([examples[i]], length)) for i in ids]
        length = max(len(_shortened(row).tokens) for _, row in placed)
        n_targets = finer_bucket(max(len(row.labels) for _, row in placed))
        placed = [(own, _cut(row, length)) for own, row in placed]
        yield _batch(examples, placed, n_rows, n_targets, bound, choices)


def _alike(examples, bound, choices) -> list[list[int]]:
    """The indices of the examples in groups with the same weights of experts."""
    by_prompt = bound is not None and isinstance(bound.router, PromptRouter)
    groups: dict[tuple, list[int]] = {}
    for i, one in enumerate(examples):
        prompt = one.tokens[: one.n_prompt].tobytes() if by_prompt else None
        groups.setdefault((prompt, None if choices is None else choices[i]), []).append(i)
    return list(groups.values())


def _at_once(bound: Bound | None, most: int) -> int:
    """The most rows of a batch: `most`, or fewer if the router reads fewer prompts at once."""
    limit = bound.router.at_once(bound.loras) if bound is not None and isinstance(bound.router, PromptRouter) else None
    return most if limit is None else min(most, limit)


def _rows_at_once(n_rows: int, most: int) -> int:
    """The largest power of two up to `most` with which at most an eighth as many rows as there are would be empty."""
    size = 1
    while 2 * size <= most and -n_rows % (2 * size) <= n_rows // 8:
        size *= 2
    return size


def _shortened(row: Rows) -> Rows:
    """A row without most of its padding: one of few lengths."""
    return _cut(row, bucket(int(np.count_nonzero(row.ends))))


def _cut(row: Rows, length: int) -> Rows:
    return row._replace(tokens=row.tokens[:length], positions=row.positions[:length], ends=row.ends[:length])


def _batch(examples, placed, n_rows, n_targets, bound, choices) -> Batch:
    """The batch of [(examples, their row)], followed by empty rows up to n_rows."""
    members, heads = [], [examples[ids[0]] for ids, _ in placed]
    for row, (ids, _) in enumerate(placed):
        ends = np.cumsum([len(examples[i].tokens) - examples[i].n_prompt for i in ids]).tolist()
        members += [Member(i, row, slice(*place)) for i, *place in zip(ids, [0, *ends[:-1]], ends, strict=True)]
    rows = pad_targets(stacked(row for _, row in placed), n_targets)
    rows = Rows(*(np.pad(field, ((0, n_rows - len(placed)), (0, 0))) for field in rows))
    prompts = None
    if bound is not None and isinstance(bound.router, PromptRouter):
        tokens = [one.tokens[: one.n_prompt] for one in heads]
        prompts = PromptRows.one_each(tokens, n_rows, bucket(max(map(len, tokens))))
    choice_B = None if choices is None else padding.filled([choices[ids[0]] for ids, _ in placed], n_rows, -1)
    return Batch(members, rows, prompts, Context(choice_B))
