"""Assembly: host buffers for one leaf of the decoder, filled layer by layer, then put on devices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Layout = Callable[[str, Any], jax.sharding.Sharding]  # (path, object with the leaf's shape) -> its sharding


class Assembly:
    """One leaf as host buffers, one buffer per distinct shard on the devices of this process.

    On a CPU the finished array uses these buffers without a copy, so no leaf is ever in memory twice.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding | None = None):
        """sharding: sharding of the finished array; None puts it on the default device."""
        self.shape, self.sharding = shape, sharding
        whole = (slice(None),) * len(shape)
        self.places = {None: whole} if sharding is None else sharding.addressable_devices_indices_map(shape)
        # Slices are not hashable before Python 3.12, so shards are identified by their bounds.
        indices = {_bounds(index): index for index in self.places.values()}
        self.parts = {bounds: (index, _buffer(_shape(index, shape), dtype)) for bounds, index in indices.items()}

    def write(self, array: np.ndarray, layer: int | None = None) -> None:
        """Writes one layer, or the whole leaf, cast to the leaf's dtype; the layer axis must not be sharded."""
        at = () if layer is None else (layer,)
        for index, buffer in self.parts.values():
            buffer[at] = array[index[len(at) :]]

    def finish(self) -> jax.Array:
        """The array on its devices; call `write` no more after this."""
        arrays = [jax.device_put(self.parts[_bounds(index)][1], device) for device, index in self.places.items()]
        if self.sharding is None:
            return arrays[0]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, arrays)


def _bounds(index):
    return tuple((part.start, part.stop) for part in index)


def _shape(index, shape):
    return tuple(len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))


def _buffer(shape, dtype):
    """An uninitialised array aligned to 64 bytes: XLA on a CPU uses such memory in place and copies any other."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
