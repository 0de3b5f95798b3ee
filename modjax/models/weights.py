"""Filling the decoder's abstract tree from named tensors, leaf by leaf, by a table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder
from modjax.parallel.distributed import gather

Shard = Callable[[str, np.ndarray], jax.Array]


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
    read: Callable[[str], np.ndarray]
    file: Callable[[str], str]  # the file that holds, or should hold, a name; for the messages
    ignored: str = r"(?!)"  # regular expression of names that carry no weights


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


def abstract(config: ModelConfig, dtype: jnp.dtype) -> Decoder:
    """The decoder's tree with a ShapeDtypeStruct in the place of each array."""
    return jax.eval_shape(lambda: Decoder.init(config, jax.random.key(0), dtype))


def leaves(decoder: Decoder) -> dict[str, jax.Array]:
    """{path: array} such as `blocks.attn.q.kernel`, in the tree's own order."""
    paths, _ = jax.tree.flatten_with_path(decoder)
    return {".".join(key.name for key in path[:-1]): leaf for path, leaf in paths}


def fill(
    config: ModelConfig, table: Mapping[str, Row], source: Source, dtype: jnp.dtype, shard: Shard | None = None
) -> Decoder:
    """The decoder with every leaf read from the source.

    table: {leaf path: Row}; a leaf under `blocks` reads one tensor for each layer into a stacked array.
    shard: places a finished leaf, (path, numpy array) -> jax array; by default on the default device.
    Raises InputError for missing and left-over names, a shape that does not fit the config, NaN and infinity.
    """
    tree = abstract(config, dtype)
    targets = leaves(tree)
    _check_names(config, {path: table[path] for path in targets}, source)
    place = shard or (lambda path, leaf: jnp.asarray(leaf))
    filled = [place(path, _read(config, path, leaf, table[path], source)) for path, leaf in targets.items()]
    return jax.tree.unflatten(jax.tree.structure(tree), filled)


def fingerprint(decoder: Decoder) -> str:
    """Sixteen hexadecimal digits that name these weights: the same in float32 and bfloat16.

    sha256 of the config (fields at their defaults left out, so that new ones change nothing) and of up to eight
    elements along each axis of every leaf, rounded to bfloat16.
    """
    config = {
        field.name: getattr(decoder.config, field.name)
        for field in dataclasses.fields(decoder.config)
        if getattr(decoder.config, field.name) != field.default
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path, sample in gather(_samples(leaves(decoder))).items():
        digest.update(path.encode() + sample.tobytes())
    return digest.hexdigest()[:16]


@jax.jit
def _samples(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    def sample(array):
        return array[tuple(slice(None, None, -(-size // 8)) for size in array.shape)].astype(jnp.bfloat16)

    return {path: sample(array) for path, array in arrays.items()}


def _sources(config: ModelConfig, path: str, row: Row) -> Iterator[str]:
    layers = range(config.L) if path.startswith("blocks.") else (0,)
    return (row.source.format(i=i) for i in layers)


def _check_names(config: ModelConfig, table: Mapping[str, Row], source: Source) -> None:
    wanted = {name: path for path, row in table.items() for name in _sources(config, path, row)}
    missing = [name for name in wanted if name not in source.names]
    if missing:
        name = missing[0]
        raise InputError(f"{source.file(name)}: {name!r} is missing (for {wanted[name]}){_and_more(missing)}")
    left_over = [name for name in source.names if name not in wanted and not re.fullmatch(source.ignored, name)]
    if left_over:
        name = left_over[0]
        raise InputError(
            f"{source.file(name)}: {name!r} has no place in a {config.family} decoder{_and_more(left_over)}"
        )


def _and_more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _read(config: ModelConfig, path: str, leaf: jax.ShapeDtypeStruct, row: Row, source: Source) -> np.ndarray:
    out = np.empty(leaf.shape, leaf.dtype)
    slots = out if path.startswith("blocks.") else out[None]
    expected = row.transform.shape(slots.shape[1:])
    for slot, name in zip(slots, _sources(config, path, row), strict=True):
        array = source.read(name)
        if array.shape != expected:
            raise InputError(f"{source.file(name)}: {name!r} has shape {array.shape}, the config expects {expected}")
        if not np.isfinite(array.astype(np.float32, copy=False)).all():
            raise InputError(f"{source.file(name)}: {name!r} holds NaN or infinite values")
        slot[...] = row.transform.apply(array, config)
    return out
