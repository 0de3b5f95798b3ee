"""Loading a decoder from the named tensors of a checkpoint, one tensor at a time, by a table of names."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modjax.errors import InputError
from modjax.models import quant
from modjax.models.assembly import Assembly, Layout
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.parallel.distributed import gather

CHUNK = 1 << 20  # elements checked for NaN and infinity at a time, in float32


class Transform(NamedTuple):
    """Conversion between a leaf of the decoder and the tensor of a checkpoint that it is loaded from, its source."""

    shape: Callable[[tuple[int, ...]], tuple[int, ...]]  # leaf shape -> source shape
    apply: Callable[[np.ndarray, ModelConfig], np.ndarray]  # source -> leaf
    undo: Callable[[np.ndarray, ModelConfig], np.ndarray] | None = None  # leaf -> source; None: only read


class Row(NamedTuple):
    """One row of a table: the name of the tensor that fills a leaf, with `{i}` for the layer, and its conversion."""

    source: str
    transform: Transform


@dataclasses.dataclass(frozen=True)
class Source:
    """Access to the named tensors of one checkpoint."""

    names: Collection[str]
    shape: Callable[[str], tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    file: Callable[[str], str]  # the file that holds, or should hold, a tensor; for messages
    ignored: str = r"(?!)"  # regular expression of names that are not weights


MOST = 100  # missing tensors counted at most, because a broken config may claim any number of layers

AS_IS = Transform(lambda shape: shape, lambda array, _: array, lambda array, _: array)
TRANSPOSED = Transform(lambda shape: shape[::-1], lambda array, _: array.T, lambda array, _: array.T)
KINDS = {"kernel": ("weight", TRANSPOSED), "scale": ("weight", AS_IS), "bias": ("bias", AS_IS)}


def table(modules: Mapping[str, str], transforms: Mapping[str, Transform] | None = None) -> dict[str, Row]:
    """{leaf path: Row} for checkpoints that name tensors MODULE.weight and MODULE.bias.

    modules: {part of the decoder, such as `blocks.attn.q`: its module's name, `{i}` for the layer}.
    transforms: {leaf path: Transform} for tensors that are not stored as PyTorch does (a Linear's weight as [O, I]).
    """
    rows = {"embed": Row(f"{modules['embed']}.weight", AS_IS)}
    for part, module in modules.items():
        rows |= {f"{part}.{kind}": Row(f"{module}.{name}", how) for kind, (name, how) in KINDS.items()}
    return rows | {path: rows[path]._replace(transform=how) for path, how in (transforms or {}).items()}


def abstract(config: ModelConfig, dtype: jnp.dtype, quantize: str | None = None) -> Decoder:
    """The decoder's tree with a ShapeDtypeStruct in place of each array."""

    def init():
        decoder = Decoder.init(config, jax.random.key(0), dtype)
        return decoder if quantize is None else quantised(decoder, quantize)

    return jax.eval_shape(init)


def quantised(decoder: Decoder, quantize: str) -> Decoder:
    """A copy of the decoder whose block kernels are quantised to "int8" or "nf4"; the original is not changed."""
    chosen = quant.FORMATS[quantize]
    return _with_kernels(
        decoder, lambda kernel: chosen(*chosen.encode(kernel[...]), quant.sampled(kernel[...], axes=2))
    )


def dequantised(decoder: Decoder, dtype: jnp.dtype) -> Decoder:
    """A copy of the decoder whose quantised kernels are decoded to this dtype; the original is not changed."""
    return _with_kernels(decoder, lambda kernel: nnx.Param(kernel.decode().astype(dtype)))


def leaves(decoder: Decoder) -> dict[str, jax.Array]:
    """{path, such as `blocks.attn.q.kernel`: array}, in tree order; a quantised kernel has several arrays."""
    paths, _ = jax.tree.flatten_with_path(decoder)
    return {".".join(key.name for key in path[:-1]): leaf for path, leaf in paths}


def fill(
    config: ModelConfig,
    table: Mapping[str, Row],
    source: Source,
    dtype: jnp.dtype,
    layout: Layout | None = None,
    quantize: str | None = None,
) -> Decoder:
    """The decoder with every leaf read from the source.

    Each tensor is read once and written directly to its place. Besides finished leaves, the host holds at most one
    tensor and, if devices have their own memory, one leaf.

    table: {leaf path: Row}; a leaf under `blocks` is a stacked array that reads one tensor per layer.
    layout: (path, object with the leaf's shape) -> sharding; by default all leaves are on the default device.
    quantize: "int8" or "nf4" quantises the kernels of blocks as they are read; None keeps them in dtype.
    Raises InputError for missing and unexpected names, a shape that does not match the config, NaN and infinite
    values, and an unknown format.
    """
    quant.check(quantize)
    plain, tree = leaves(abstract(config, dtype)), abstract(config, dtype, quantize)
    _check(config, plain, table, source)
    filled = {}
    for path in plain:
        # A quantised kernel is one tensor in the source and several leaves, `path.codes` and so on, in the tree.
        targets = {name: like for name, like in leaves(tree).items() if name == path or name.startswith(f"{path}.")}
        parts = {
            name: Assembly(like.shape, like.dtype, layout and layout(name, like)) for name, like in targets.items()
        }
        stacked = path.startswith("blocks.")
        for layer, name in enumerate(_sources(config, path, table[path])):
            how = (config, name, table[path].transform, source)
            # No variable refers to the tensor, so that it is freed before the next one is read.
            _write(_array(*how), parts, path, layer if stacked else None, quantize)
        filled |= {name: part.finish() for name, part in parts.items()}
    return jax.tree.unflatten(jax.tree.structure(tree), [filled[path] for path in leaves(tree)])


def fingerprint(decoder: Decoder) -> str:
    """Sixteen hexadecimal digits that identify these weights: the same in float32, bfloat16 and quantised.

    They are from the sha256 of the config (without fields at their defaults, so that adding a field changes nothing)
    and of a sample of every leaf, up to eight elements along each axis, rounded to bfloat16. A quantised kernel stores
    the sample of its original.
    """
    config = {
        field.name: getattr(decoder.config, field.name)
        for field in dataclasses.fields(decoder.config)
        if getattr(decoder.config, field.name) != field.default
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path, sample in gather(_samples(_originals(decoder))).items():
        digest.update(path.encode() + sample.tobytes())
    return digest.hexdigest()[:16]


def _with_kernels(decoder: Decoder, change: Callable[[nnx.Module], nnx.Module]) -> Decoder:
    changed = jax.tree.map(lambda leaf: leaf, decoder)
    for site in decoder.config.sites:
        linear = changed.blocks.linear(site)
        linear.kernel = change(linear.kernel)
    return changed


def _originals(decoder: Decoder) -> dict[str, jax.Array]:
    """The leaves, where a quantised kernel has only the sample of its original, under the path of the kernel."""
    quantised = (".kernel.codes", ".kernel.scale")
    found = {path: leaf for path, leaf in leaves(decoder).items() if not path.endswith(quantised)}
    return {path.replace(".kernel.sample", ".kernel"): leaf for path, leaf in found.items()}


@jax.jit
def _samples(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: quant.sampled(array) for path, array in arrays.items()}


def _sources(config: ModelConfig, path: str, row: Row) -> Iterator[str]:
    layers = range(config.L) if path.startswith("blocks.") else (0,)
    return (row.source.format(i=i) for i in layers)


def _check(config: ModelConfig, plain: Mapping[str, jax.Array], table: Mapping[str, Row], source: Source) -> None:
    """Raises InputError unless the source has exactly the expected tensors, in their shapes.

    It runs before any buffer is allocated, because a broken config may claim any size.
    """
    wanted = ((name, path) for path in plain for name in _sources(config, path, table[path]))
    missing = list(itertools.islice((pair for pair in wanted if pair[0] not in source.names), MOST))
    if missing:
        name, path = missing[0]
        raise InputError(f"{source.file(name)}: {name!r} is missing (for {path}){_and_more(missing)}")
    expected = {}
    for path, leaf in plain.items():
        shape = table[path].transform.shape(leaf.shape[1:] if path.startswith("blocks.") else leaf.shape)
        expected |= dict.fromkeys(_sources(config, path, table[path]), shape)
    for name, shape in expected.items():
        if source.shape(name) != shape:
            raise InputError(
                f"{source.file(name)}: {name!r} has shape {source.shape(name)}, the config expects {shape}"
            )
    left_over = [name for name in source.names if name not in expected and not re.fullmatch(source.ignored, name)]
    if left_over:
        name = left_over[0]
        raise InputError(
            f"{source.file(name)}: {name!r} is not a tensor of this {config.family} decoder{_and_more(left_over)}"
        )


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _array(config: ModelConfig, name: str, transform: Transform, source: Source) -> np.ndarray:
    """One tensor in the layout of its leaf, or of one layer of its leaf."""
    array = source.read(name)
    if not _finite(array):
        raise InputError(f"{source.file(name)}: {name!r} holds NaN or infinite values")
    return transform.apply(array, config)


def _write(
    array: np.ndarray, parts: Mapping[str, Assembly], path: str, layer: int | None, quantize: str | None
) -> None:
    pieces = {path: array} if path in parts else quant.encoded(array, quantize, path)
    for name, piece in pieces.items():
        parts[name].write(piece, layer)


def _finite(array: np.ndarray) -> bool:
    flat = array.reshape(-1)
    parts = (flat[at : at + CHUNK] for at in range(0, len(flat), CHUNK))
    return all(np.isfinite(part.astype(np.float32, copy=False)).all() for part in parts)
