"""A leaf of the decoder under construction: written layer by layer to where it will lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Layout = Callable[[str, Any], jax.sharding.Sharding]  # (path, anything of the leaf's shape) -> where the leaf lies


class Assembly:
    """One leaf as host buffers, one for each different part that devices of this process hold.

    On a CPU the finished array is its buffers, not a copy of them, so no leaf ever lies in memory twice.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding | None = None):
        """sharding: of the finished array; None for the default device."""
        self.shape, self.sharding = shape, sharding
        whole = (slice(None),) * len(shape)
        self.places = {None: whole} if sharding is None else sharding.addressable_devices_indices_map(shape)
        indices = {_bounds(index): index for index in self.places.values()}
        self.parts = {bounds: (index, _buffer(_shape(index, shape), dtype)) for bounds, index in indices.items()}

    def write(self, array: np.ndarray, layer: int | None = None) -> None:
        """Writes one layer, or the whole leaf, with the leaf's dtype; the layer axis is never split over devices."""
        at = () if layer is None else (layer,)
        for index, buffer in self.parts.values():
            buffer[at] = array[index[len(at) :]]

    def finish(self) -> jax.Array:
        """The array on its devices; nothing may be written any more."""
        arrays = [jax.device_put(self.parts[_bounds(index)][1], device) for device, index in self.places.items()]
        if self.sharding is None:
            return arrays[0]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, arrays)


def _bounds(index):
    return tuple((part.start, part.stop) for part in index)


def _shape(index, shape):
    return tuple(len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))


def _buffer(shape, dtype):
    """An empty array that begins at a multiple of 64 bytes: XLA takes such memory over, and copies any other."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)
