"""Digests: sixteen hexadecimal digits of sha256 that identify content, so that other content is told apart."""

import hashlib
import json
import pathlib
from typing import Any

import jax
import numpy as np

from modjax.files import plain
from modjax.parallel.distributed import gather


def of_json(value: Any) -> str:
    """The digest of plain data."""
    return _digits(hashlib.sha256(json.dumps(plain(value)).encode()))


def of_arrays(tree: Any) -> str:
    """The digest of all arrays of a tree: their places, dtypes, shapes and bytes. All processes must call it alike."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        array = np.asarray(gather(leaf) if isinstance(leaf, jax.Array) else leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return _digits(digest)


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
