"""Batches of lockstep training: [E, B, ...] rows per step; each expert has rows of its own tasks in its own order."""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import grain
import numpy as np

from modjax.data.rows import Rows, pad_targets, stacked


def key_of(name: str, seed: int) -> int:
    """A 31-bit seed for one expert, which does not depend on the other experts."""
    return zlib.crc32(f"{seed}:{name}".encode()) & 0x7FFFFFFF


def batches(
    rows: Mapping[str, Rows], batch: int, steps: int, seed: int, starts: Sequence[int] = (), targets: int | None = None
) -> grain.MapDataset:
    """Batches of Rows with leading axes [E, B], with random access, so that resuming is slicing.

    The rows of an expert repeat without end, in an order of their own in every epoch that depends on the expert's name
    and the seed, so experts with few rows see each of them more often.

    Args:
      steps: those of each expert in all; there are batches until the last one has done them.
      starts: the steps that each expert has done before the first batch; by default none.
      targets: target tokens of a row, M; by default as many as the rows have.
    """
    targets, starts = targets or width(rows.values()), starts or [0] * len(rows)
    own = [(key_of(name, seed), part, start) for (name, part), start in zip(rows.items(), starts, strict=True)]

    def one(index):
        return stacked(pad_targets(_taken(key, part, batch, start + index), targets) for key, part, start in own)

    return grain.MapDataset.range(steps - min(starts)).map(one)


def padded(
    rows: Mapping[str, Rows], batch: int, n_rows: int | None = None, targets: int | None = None
) -> Iterator[Rows]:
    """Every row once, in batches [E, B, ...]; empty rows are added for experts with fewer rows.

    n_rows, targets: rows of an expert and targets of a row; by default as many as the rows have.
    """
    n_rows = n_rows or max(part.n_rows for part in rows.values())
    targets = targets or width(rows.values())
    for first in range(0, n_rows, batch):
        yield stacked(
            pad_targets(Rows(*(_fill(field[first : first + batch], batch) for field in part)), targets)
            for part in rows.values()
        )


def width(rows: Iterable[Rows]) -> int:
    """The number of targets that all rows are padded to: few distinct ones, so few compilations; 0 without rows."""
    widest = max((part.labels.shape[1] for part in rows), default=0)
    return widest + -widest % 16


def _taken(key, rows, batch, step):
    """The rows of one expert in one step."""
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), rows.n_rows)
    orders = {epoch: np.random.default_rng((key, epoch)).permutation(rows.n_rows) for epoch in np.unique(epochs)}
    chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
    return Rows(*(field[chosen] for field in rows))


def _fill(field, n_rows):
    return np.pad(field, [(0, n_rows - len(field))] + [(0, 0)] * (field.ndim - 1))
