"""Digests: sixteen hexadecimal digits of sha256 that identify content, so that other content is told apart."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.files import plain
from modjax.parallel.distributed import gather


def of_json(value: Any) -> str:
    """The digest of plain data."""
    return _digits(hashlib.sha256(json.dumps(plain(value)).encode()))


class Lines:
    """The digest of a sequence of plain data, of which one item at a time is in memory."""

    def __init__(self):
        self._digest = hashlib.sha256()

    def add(self, value: Any) -> None:
        self._digest.update(json.dumps(value).encode() + b"\n")

    def digits(self) -> str:
        return _digits(self._digest)


def of_arrays(tree: Any) -> str:
    """The digest of all arrays of a tree: their places, dtypes, shapes and bytes. All processes must call it alike."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(gather(leaf) if isinstance(leaf, jax.Array) else leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return _digits(digest)


def of_weights(tree: Any) -> str:
    """The digest of arrays that are too large to go to the host: of sums over all their bits, taken where they lie.

    Any one changed element changes it. All processes must call it alike.
    """
    sums = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
    shapes = {path: [leaf.dtype.name, list(leaf.shape)] for path, leaf in sums.items()}
    found = gather(jax.jit(lambda leaves: jax.tree.map(_sums, leaves))(sums))
    return of_json([shapes, {path: array.tolist() for path, array in found.items()}])


def _sums(array: jax.Array) -> jax.Array:
    """uint32[2]: sums of the elements' bits, each times two odd numbers that depend on its place, modulo 2^32."""
    unsigned = jnp.dtype(f"uint{8 * array.dtype.itemsize}")
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    first = (place ^ (place >> 15)) * jnp.uint32(0x2C1B3C6D)
    second = (first ^ (first >> 12)) * jnp.uint32(0x297A2D39)
    return jnp.stack([jnp.sum(bits * (factor | 1)) for factor in (first, second)])


def of_file(path: pathlib.Path) -> str:
    """The digest of a file's bytes; "" if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return _digits(hashlib.file_digest(file, "sha256"))


def of_large(path: pathlib.Path) -> str:
    """The digest of the names, sizes and times of a folder's files, or of one file, too large to be read for it."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    known = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return of_json(known)


def _digits(digest) -> str:
    return digest.hexdigest()[:16]
