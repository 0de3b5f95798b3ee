"""Filling the decoder's abstract tree from named tensors, one at a time, by a table."""

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

CHUNK = 1 << 20  # elements looked at in float32 at a time


class Transform(NamedTuple):
    """How a leaf lies in the file: the shape it has there, and the way from there to here."""

    shape: Callable[[tuple[int, ...]], tuple[int, ...]]  # leaf shape -> source shape
    apply: Callable[[np.ndarray, ModelConfig], np.ndarray]  # source -> leaf
    undo: Callable[[np.ndarray, ModelConfig], np.ndarray]  # leaf -> source


class Row(NamedTuple):
    """One row of a table: the tensor, `{i}` standing for the layer, that fills a leaf."""

    source: str
    transform: Transform


@dataclasses.dataclass(frozen=True)
class Source:
    """Named tensors of one checkpoint."""

    names: Collection[str]
    shape: Callable[[str], tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    file: Callable[[str], str]  # the file that holds, or should hold, a name; for the messages
    ignored: str = r"(?!)"  # regular expression of names that carry no weights


MOST = 100  # missing tensors that are counted: a broken config may claim any number of layers

AS_IS = Transform(lambda shape: shape, lambda array, _: array, lambda array, _: array)
TRANSPOSED = Transform(lambda shape: shape[::-1], lambda array, _: array.T, lambda array, _: array.T)
KINDS = {"kernel": ("weight", TRANSPOSED), "scale": ("weight", AS_IS), "bias": ("bias", AS_IS)}


def table(modules: Mapping[str, str], transforms: Mapping[str, Transform] | None = None) -> dict[str, Row]:
    """{leaf path: Row} for checkpoints that name tensors MODULE.weight and MODULE.bias.

    modules: {part of the decoder, such as `blocks.attn.q`: its module's name, `{i}` for the layer}.
    transforms: {leaf path: Transform} where a leaf does not lie there as PyTorch's Linear lays it, [O, I].
    """
    rows = {"embed": Row(f"{modules['embed']}.weight", AS_IS)}
    for part, module in modules.items():
        rows |= {f"{part}.{kind}": Row(f"{module}.{name}", how) for kind, (name, how) in KINDS.items()}
    return rows | {path: rows[path]._replace(transform=how) for path, how in (transforms or {}).items()}


def abstract(config: ModelConfig, dtype: jnp.dtype, quantize: str | None = None) -> Decoder:
    """The decoder's tree with a ShapeDtypeStruct in the place of each array."""

    def init():
        decoder = Decoder.init(config, jax.random.key(0), dtype)
        return decoder if quantize is None else quantised(decoder, quantize)

    return jax.eval_shape(init)


def quantised(decoder: Decoder, quantize: str) -> Decoder:
    """A decoder whose blocks' kernels are quantised, to "int8" or "nf4"; the given one stays as it is."""
    chosen = quant.FORMATS[quantize]
    return _with_kernels(
        decoder, lambda kernel: chosen(*chosen.encode(kernel[...]), quant.sampled(kernel[...], axes=2))
    )


def dequantised(decoder: Decoder, dtype: jnp.dtype) -> Decoder:
    """A decoder with kernels of this dtype in the place of quantised ones; the given one stays as it is."""
    return _with_kernels(decoder, lambda kernel: nnx.Param(kernel.decode().astype(dtype)))


def leaves(decoder: Decoder) -> dict[str, jax.Array]:
    """{path: array} such as `blocks.attn.q.kernel`, in the tree's own order; of a quantised kernel several arrays."""
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

    Tensors are read one at a time, each once and straight into its place: beside what is finished, the host holds one
    tensor and, where devices have memory of their own, one leaf.

    table: {leaf path: Row}; a leaf under `blocks` reads one tensor for each layer into a stacked array.
    layout: where a leaf lies, (path, its shape and dtype) -> sharding; by default on the default device.
    quantize: "int8" or "nf4" for the kernels of blocks, quantised as they are read; None leaves them in dtype.
    Raises InputError for missing and left-over names, a shape that does not fit the config, NaN and infinity, an
    unknown format.
    """
    quant.check(quantize)
    plain, tree = leaves(abstract(config, dtype)), abstract(config, dtype, quantize)
    _check(config, plain, table, source)
    filled = {}
    for path in plain:
        own = {found: like for found, like in leaves(tree).items() if found == path or found.startswith(f"{path}.")}
        parts = {found: Assembly(like.shape, like.dtype, layout and layout(found, like)) for found, like in own.items()}
        stacked = path.startswith("blocks.")
        for layer, name in enumerate(_sources(config, path, table[path])):
            how = (config, name, table[path].transform, source)
            # No variable holds the tensor: it must be gone when the next one is read.
            _write(_array(*how), parts, path, layer if stacked else None, quantize)
        filled |= {name: part.finish() for name, part in parts.items()}
    return jax.tree.unflatten(jax.tree.structure(tree), [filled[path] for path in leaves(tree)])


def fingerprint(decoder: Decoder) -> str:
    """Sixteen hexadecimal digits that name these weights: the same in float32, bfloat16 and quantised.

    sha256 of the config (fields at their defaults left out, so that new ones change nothing) and of up to eight
    elements along each axis of every leaf, rounded to bfloat16; quantised kernels keep those of the kernel they were.
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
    """The leaves, of quantised kernels only what is kept of the originals, under their names."""
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
    """That every tensor is there in its shape, and no other, before any memory is taken for what a config claims."""
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
            f"{source.file(name)}: {name!r} has no place in a {config.family} decoder{_and_more(left_over)}"
        )


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _array(config: ModelConfig, name: str, transform: Transform, source: Source) -> np.ndarray:
    """One tensor as it lies in its leaf, or in the leaf's layer."""
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
