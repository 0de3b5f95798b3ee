"""Safetensors files, read and written one tensor at a time, so that only one tensor is in memory.

The safetensors package is used only to check files. It reads through a memory map, whose pages stay resident until the
map is closed, and it can write only tensors that are all in memory at once.
Format: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from modjax.errors import InputError

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}


class Tensor(NamedTuple):
    """The location and type of a tensor in a file."""

    file: pathlib.Path
    dtype: str  # as the format names it, such as "BF16"
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file


def tensors(file: pathlib.Path) -> dict[str, Tensor]:
    """{name: Tensor} of a file. Raises InputError if it is missing, truncated or not a safetensors file."""
    try:
        with safe_open(file, framework="numpy"), open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            listed = json.loads(opened.read(length))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: is truncated, missing or not a safetensors file ({error})") from error
    listed.pop("__metadata__", None)
    return {
        name: Tensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in listed.items()
    }


def read(name: str, tensor: Tensor) -> np.ndarray:
    """Reads one tensor in the dtype of the file. Raises InputError if that is not a floating-point dtype."""
    dtype = _dtype(name, tensor)
    raw = np.fromfile(tensor.file, np.uint8, math.prod(tensor.shape) * dtype.itemsize, offset=tensor.offset)
    return raw.view(dtype).reshape(tensor.shape)


def mapped(name: str, tensor: Tensor) -> np.ndarray:
    """One tensor as a read-only memory map: its pages are read when they are used. Raises InputError as `read`."""
    return np.memmap(tensor.file, _dtype(name, tensor), "r", tensor.offset, tensor.shape)


def create(
    file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, metadata: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Writes tensors of zeros, and returns memory maps to fill them in: {name: array}.

    shapes: {name: shape}, in the order of the file. dtype: a key of DTYPES.
    """
    header, places = _header(shapes, dtype, metadata)
    with open(file, "wb") as opened:
        opened.write(header)
        opened.truncate(len(header) + max(end for _, end in places.values()))
    return {
        name: np.memmap(file, DTYPES[dtype], "r+", len(header) + start, shapes[name])
        for name, (start, _) in places.items()
    }


def write(
    file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, array: Callable[[str], np.ndarray]
) -> int:
    """Writes tensors of one dtype and returns the size of their data in bytes.

    shapes: {name: shape}, in the order of the file. dtype: a key of DTYPES.
    array: name -> values; called when that tensor is written, so that one tensor is in memory at a time.
    """
    header, places = _header(shapes, dtype, {"format": "pt"})
    with open(file, "wb") as opened:
        opened.write(header)
        for name, shape in shapes.items():
            np.ascontiguousarray(array(name).reshape(shape), DTYPES[dtype]).tofile(opened)
    return max((end for _, end in places.values()), default=0)


def _dtype(name, tensor) -> np.dtype:
    if tensor.dtype not in DTYPES:
        raise InputError(f"{tensor.file}: {name!r} has dtype {tensor.dtype}; expected one of {', '.join(DTYPES)}")
    return np.dtype(DTYPES[tensor.dtype])


def _header(shapes, dtype, metadata) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The bytes before the data, and where each tensor begins and ends in it."""
    itemsize, end, places = np.dtype(DTYPES[dtype]).itemsize, 0, {}
    for name, shape in shapes.items():
        places[name] = (end, end + math.prod(shape) * itemsize)
        _, end = places[name]
    entries = {name: {"dtype": dtype, "shape": shapes[name], "data_offsets": own} for name, own in places.items()}
    header = json.dumps({"__metadata__": dict(metadata), **entries}).encode()
    header += b" " * (-len(header) % 8)  # the data begins at a multiple of eight bytes
    return len(header).to_bytes(8, "little") + header, places
