"""Padding of rows to few different lengths, for few compilations, and with similar lengths together."""

from collections.abc import Sequence

import numpy as np

from modjax.arguments import whole


def bucket(length: int, least: int = 64) -> int:
    """The padded length: the next power of two, at least `least`."""
    return max(least, 1 << (length - 1).bit_length())


def finer_bucket(size: int, least: int = 16) -> int:
    """The padded size, at least `least`, with less padding: from one power of two to the next there are four sizes."""
    step = max(bucket(size, 1) // 8, least)
    return max(-(-size // step), 1) * step


def largest(limit: int) -> int:
    """The largest power of two up to `limit`, which is at least 1."""
    return 1 << (limit.bit_length() - 1)


def fitting(batch: int, count: int, shards: int = 1) -> int:
    """The rows of a batch that holds at most `batch` of `count` items: no more than the next power of two of these.

    shards: the devices that share the rows, which get equally many; so there may be up to `shards` - 1 rows more.
    Raises InputError for a batch below 1.
    """
    return shared(min(whole("batch", batch, least=1), bucket(count, 1)), shards)


def shared(rows: int, shards: int) -> int:
    """The least multiple of `shards` that is not below `rows`."""
    return -(-rows // shards) * shards


def batched_by_length(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Indices in batches of similar length, so that there is little padding. Raises InputError for a batch below 1."""
    batch = whole("batch", batch, least=1)
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def right_padded(encoded: Sequence[np.ndarray], rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """int32[rows, columns], one sequence per row, and int32[rows], their lengths; 0 for rows without one."""
    tokens_BT = np.zeros((rows, columns), np.int32)
    lengths_B = np.zeros(rows, np.int32)
    for row, ids in enumerate(encoded):
        tokens_BT[row, : len(ids)] = ids
        lengths_B[row] = len(ids)
    return tokens_BT, lengths_B


def filled(values: Sequence[int], rows: int, filler: int) -> np.ndarray:
    """int32[rows]: one value per row, then the filler for the rows that only fill the batch."""
    return np.asarray([*values, *[filler] * (rows - len(values))], np.int32)
