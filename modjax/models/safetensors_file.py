"""Safetensors files, read and written tensor by tensor: one lies in memory at a time.

The safetensors package checks a file but does not read it: it maps files into memory, and all that was read from a
map stays resident until the map is closed. It writes only what lies in memory as a whole.
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
    """Where a tensor lies."""

    file: pathlib.Path
    dtype: str  # the format's name
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file


def tensors(file: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a file by name; InputError unless the file is whole."""
    try:
        with safe_open(file, framework="numpy"), open(file, "rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            listed = json.loads(opened.read(length))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: is truncated, missing or no safetensors file ({error})") from error
    listed.pop("__metadata__", None)
    return {
        name: Tensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
        for name, entry in listed.items()
    }


def read(name: str, tensor: Tensor) -> np.ndarray:
    """The tensor, in its own dtype; InputError for one that is no float."""
    if tensor.dtype not in DTYPES:
        raise InputError(f"{tensor.file}: {name!r} has dtype {tensor.dtype}; expected one of {', '.join(DTYPES)}")
    dtype = np.dtype(DTYPES[tensor.dtype])
    raw = np.fromfile(tensor.file, np.uint8, math.prod(tensor.shape) * dtype.itemsize, offset=tensor.offset)
    return raw.view(dtype).reshape(tensor.shape)


def write(
    file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, array: Callable[[str], np.ndarray]
) -> int:
    """Writes tensors of one dtype (the format's name for it), each made when its turn comes; gives their bytes."""
    itemsize, end, listed = np.dtype(DTYPES[dtype]).itemsize, 0, {}
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * itemsize
        listed[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    header = json.dumps({"__metadata__": {"format": "pt"}, **listed}).encode()
    header += b" " * (-len(header) % 8)  # the data begins at a multiple of eight bytes
    with open(file, "wb") as opened:
        opened.write(len(header).to_bytes(8, "little") + header)
        for name, shape in shapes.items():
            np.ascontiguousarray(array(name).reshape(shape), DTYPES[dtype]).tofile(opened)
    return end
