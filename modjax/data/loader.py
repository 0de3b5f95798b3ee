"""Batches of lockstep training: [E, B, ...] rows per step; each expert has rows of its own tasks in its own order."""

import zlib
from collections.abc import Mapping

import grain
import numpy as np

from modjax.data.rows import Rows, pad_targets, stacked


def key_of(name: str, seed: int) -> int:
    """A 31-bit seed for one expert, which does not depend on the other experts."""
    return zlib.crc32(f"{seed}:{name}".encode()) & 0x7FFFFFFF


def batches(rows: Mapping[str, Rows], batch: int, steps: int, seed: int) -> grain.MapDataset:
    """`steps` batches of Rows with leading axes [E, B], with random access, so that resuming is slicing.

    The rows of an expert repeat without end, in an order of their own in every epoch that depends on the expert's name
    and the seed, so experts with few rows see each of them more often.
    """
    aligned = [(key_of(name, seed), part) for name, part in _aligned(rows).items()]
    return grain.MapDataset.range(steps).map(lambda step: stacked(_taken(*own, batch, step) for own in aligned))


def padded(rows: Mapping[str, Rows], batch: int) -> list[Rows]:
    """Every row once, in batches [E, B, ...]; empty rows are added for experts with fewer rows."""
    aligned = list(_aligned(rows).values())
    n_rows = max(part.n_rows for part in aligned)
    n_rows += -n_rows % batch
    full = stacked([Rows(*(_fill(field, n_rows) for field in part)) for part in aligned])
    return [Rows(*(field[:, i : i + batch] for field in full)) for i in range(0, n_rows, batch)]


def _aligned(rows):
    """The rows of each expert, all padded to the same number of targets."""
    width = max(part.labels.shape[1] for part in rows.values())
    width += -width % 16  # few distinct widths, so few compilations
    return {name: pad_targets(part, width) for name, part in rows.items()}


def _taken(key, rows, batch, step):
    """The rows of one expert in one step."""
    epochs, places = np.divmod(np.arange(step * batch, (step + 1) * batch), rows.n_rows)
    orders = {epoch: np.random.default_rng((key, epoch)).permutation(rows.n_rows) for epoch in np.unique(epochs)}
    chosen = [orders[epoch][place] for epoch, place in zip(epochs, places, strict=True)]
    return Rows(*(field[chosen] for field in rows))


def _fill(field, n_rows):
    return np.pad(field, [(0, n_rows - len(field))] + [(0, 0)] * (field.ndim - 1))
