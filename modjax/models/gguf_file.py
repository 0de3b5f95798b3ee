"""GGUF files: the header, and tensors dequantised one at a time.

The header is parsed here in 0.1 s; the reader of the `gguf` package makes an array of each string of the vocabulary,
which takes seconds. The package is used to decode the quantised formats.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import os
import pathlib
import re
import struct
from types import ModuleType
from typing import Any

import numpy as np

from modjax.errors import InputError

# Value types of the metadata, with their format in `struct`.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
PART = re.compile(r"(.+)-00001-of-(\d{5})\.gguf")
CHUNK = 1 << 20  # weights dequantised at a time


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The location and format of a tensor. The shape is in the order of NumPy; the file lists it reversed."""

    shape: tuple[int, ...]
    kind: int  # ggml's id of the (quantised) format
    offset: int  # bytes from the start of the file
    file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Header:
    """The part of a GGUF file before its data."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def header(path: str | pathlib.Path) -> Header:
    """Metadata and tensor list; of a model that is split into several files, given the first one, those of all.

    Raises InputError for a truncated header, a missing part, and if the file is not GGUF version 2 or 3.
    """
    path = pathlib.Path(path)
    head = _one_header(path)
    count = str(head.metadata.get("split.count", 1))
    if count in ("0", "1"):
        return head
    first = PART.fullmatch(path.name)
    if head.metadata.get("split.no", 0) != 0 or not first or first[2] != count.zfill(5):
        raise InputError(f"{path}: is one of {count} parts of a model; expected the first, NAME-00001-of-N.gguf")
    numbers = range(2, int(count) + 1)
    others = [_one_header(path.with_name(f"{first[1]}-{number:05}-of-{first[2]}.gguf")) for number in numbers]
    return Header(head.metadata, {name: one for part in (head, *others) for name, one in part.tensors.items()})


def _one_header(path: pathlib.Path) -> Header:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Cursor(data), path)
    except InputError:
        raise
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path}: its GGUF header is truncated or damaged ({error})") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def read(name: str, tensor: Tensor) -> np.ndarray:
    """Reads one tensor, dequantised to float32.

    Rows are dequantised in chunks, because the gguf package needs several times the memory of its result.
    Raises InputError for a truncated file and for a format that the gguf package cannot read.
    """
    path = tensor.file
    kind, row_bytes = _format(path, name, tensor)
    count = math.prod(tensor.shape[:-1])
    size, available = count * row_bytes, max(0, os.path.getsize(path) - tensor.offset)
    if available < size:
        raise InputError(f"{path}: is truncated: {name!r} has {available} bytes; expected {size}")
    out = np.empty((count, tensor.shape[-1]), np.float32)
    step = max(1, CHUNK // tensor.shape[-1])
    with open(path, "rb") as file:
        file.seek(tensor.offset)
        for at in range(0, count, step):
            rows = out[at : at + step]
            rows[...] = _dequantised(np.fromfile(file, np.uint8, len(rows) * row_bytes).reshape(len(rows), -1), kind)
    return out.reshape(tensor.shape)


def package(path: str | pathlib.Path) -> ModuleType:
    """The `gguf` package. Raises InputError, naming the file that needs it, if it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise InputError(f"{path}: reading GGUF files needs the gguf package; run: pip install gguf") from error
    return gguf


def _format(path, name, tensor):
    """The format of a tensor, checked to be readable, and the bytes per row."""
    known = package(path)
    try:
        kind = known.GGMLQuantizationType(tensor.kind)
        per_block, block_bytes = known.GGML_QUANT_SIZES[kind]
        _dequantised(np.zeros((1, block_bytes), np.uint8), kind)
    except (NotImplementedError, ValueError, KeyError) as error:
        raise InputError(f"{path}: {name!r} has format {tensor.kind}, which the gguf package cannot read") from error
    if tensor.shape[-1] % per_block:
        raise InputError(
            f"{path}: {name!r} has rows of {tensor.shape[-1]}; expected a multiple of {per_block} for {kind.name}"
        )
    return kind, tensor.shape[-1] // per_block * block_bytes


def _dequantised(raw, kind):
    from gguf.quants import dequantize

    return dequantize(raw, kind)


class _Cursor:
    """Reads successive little-endian values."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        (length,) = struct.unpack_from("<Q", self.data, self.at)
        start, self.at = self.at + 8, self.at + 8 + length
        if self.at > len(self.data):
            raise struct.error(f"a string ends at byte {self.at}, the file at byte {len(self.data)}")
        return self.data[start : self.at].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        kind, length = self.scalar("I"), self.scalar("Q")
        if kind in SCALARS:
            values = np.frombuffer(self.data, np.dtype("<" + SCALARS[kind]), length, self.at)
            self.at += values.nbytes
            return values.tolist()
        return [self.value(kind) for _ in range(length)]


def _header(cursor: _Cursor, path: pathlib.Path) -> Header:
    magic, version = cursor.data[:4], struct.unpack_from("<I", cursor.data, 4)[0]
    if magic != b"GGUF" or version not in (2, 3):
        raise InputError(f"{path}: starts with {magic!r}, version {version}; expected b'GGUF', version 2 or 3")
    cursor.at = 8
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    listed = {cursor.string(): _listed(cursor, path) for _ in range(tensor_count)}
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise InputError(f"{path}: general.alignment is {alignment!r}; expected a positive whole number")
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: dataclasses.replace(tensor, offset=start + tensor.offset) for name, tensor in listed.items()}
    return Header(metadata, tensors)


def _listed(cursor: _Cursor, path: pathlib.Path) -> Tensor:
    shape = tuple(cursor.scalar("Q") for _ in range(cursor.scalar("I")))[::-1]
    return Tensor(shape, kind=cursor.scalar("I"), offset=cursor.scalar("Q"), file=path)
