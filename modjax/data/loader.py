"""Batches of lockstep training: [E, B, ...] rows a step, every expert's from its own tasks in its own order."""

import zlib
from collections.abc import Mapping

import grain
import numpy as np

from modjax.data.pack import Rows, pad_targets, stack


def key_of(name: str, seed: int) -> int:
    """A 31-bit seed that belongs to an expert: other experts come and go, its randomness stays."""
    return zlib.crc32(f"{seed}:{name}".encode()) & 0x7FFFFFFF


def batches(rows: Mapping[str, Rows], batch: int, steps: int, seed: int) -> grain.MapDataset:
    """`steps` batches of Rows with leading axes [E, B], by random access: resuming is slicing.

    Each expert's rows are shuffled anew every epoch by a seed of its own and repeat without end, so
    experts with few rows see theirs more often.
    """
    aligned = _aligned(rows)
    per_expert = [_endless(own, key_of(name, seed)).batch(batch, batch_fn=stack) for name, own in aligned.items()]
    return grain.MapDataset.range(steps).map(lambda step: stack([expert[step] for expert in per_expert]))


def padded(rows: Mapping[str, Rows], batch: int) -> list[Rows]:
    """All rows once, as batches [E, B, ...]; experts with fewer rows are filled up with empty ones."""
    aligned = list(_aligned(rows).values())
    n_rows = max(own.n_rows for own in aligned)
    n_rows += -n_rows % batch
    full = stack([Rows(*(_fill(field, n_rows) for field in own)) for own in aligned])
    return [Rows(*(field[:, i : i + batch] for field in full)) for i in range(0, n_rows, batch)]


def _aligned(rows):
    width = max(own.labels.shape[1] for own in rows.values())
    width += -width % 16  # few distinct widths, few compilations
    return {name: pad_targets(own, width) for name, own in rows.items()}


def _endless(rows, seed):
    source = [Rows(*(field[i] for field in rows)) for i in range(rows.n_rows)]
    return grain.MapDataset.source(source).seed(seed).shuffle().repeat()


def _fill(field, n_rows):
    return np.pad(field, [(0, n_rows - len(field))] + [(0, 0)] * (field.ndim - 1))
