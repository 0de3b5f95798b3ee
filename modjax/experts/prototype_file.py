"""prototypes.safetensors: the prototype of every expert of a saved library, in a file that is mapped into memory.

{site: float32[E,L,I]}, the first right singular vector of each expert's update B^T A, 0 where that is 0. The metadata
has the output width of each site, and a digest of the hashes that the file was made of: with other hashes in
library.json it is made again.
"""

import json
import os
import pathlib
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from modjax import digest
from modjax.errors import InputError
from modjax.experts import store
from modjax.experts.index import Index
from modjax.files import check_file, os_errors
from modjax.models import safetensors_file
from modjax.ops.linalg import leading
from modjax.ops.lora import Factors, LoRA

Widths = dict[str, tuple[int, int]]  # {site: (input, output)}


class Prototypes(NamedTuple):
    """The content of the file."""

    arrays: dict[str, np.ndarray]  # {site: float32[E,L,I]}, mapped: what an expert has lies together
    widths: Widths


def opened(path: pathlib.Path, index: Index, file: pathlib.Path) -> Prototypes:
    """The prototypes of the library at `path`, from the file if it was made of the same experts, else made and kept.

    Making them reads every expert once, one at a time, and checks its hash. Raises InputError as `store.load`, for
    experts to models of different shapes, and if the file cannot be written.
    """
    made_of = digest.of_json([index.layers, [(entry.info.name, entry.sha256) for entry in index.entries]])
    if _metadata(file).get("library") != made_of:
        _make(path, index, file, made_of)
    return _read(file, index)


def _metadata(file) -> dict[str, str]:
    try:
        with safetensors.safe_open(str(file), framework="numpy") as opened:
            return opened.metadata() or {}
    except (OSError, safetensors.SafetensorError):
        return {}  # a missing or damaged file is made


def _read(file, index) -> Prototypes:
    outputs = json.loads(_metadata(file)["outputs"])
    arrays = {site: safetensors_file.mapped(site, one) for site, one in safetensors_file.tensors(file).items()}
    for site, array in arrays.items():
        if array.shape[:2] != (len(index.entries), index.layers) or array.dtype != np.float32:
            raise InputError(f"{file}: {site!r} is {array.dtype}{list(array.shape)}; delete the file to make it again")
    return Prototypes(arrays, {site: (array.shape[2], outputs[site]) for site, array in arrays.items()})


def _make(path, index, file, made_of):
    widths = _widths(path, index)
    shapes = {site: (len(index.entries), index.layers, i) for site, (i, _) in widths.items()}
    metadata = {"library": made_of, "outputs": json.dumps({site: o for site, (_, o) in widths.items()})}
    with os_errors(file, "written"):
        check_file(file)
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # others may make the same file
        os.close(handle)
    try:
        arrays = safetensors_file.create(pathlib.Path(draft), shapes, "F32", metadata)
        for e, entry in enumerate(index.entries):
            for site, lora in store.read(path, entry).stacked(index.layers, index.rank).items():
                arrays[site][e] = _direction(lora)
        with os_errors(file, "written"):
            for array in arrays.values():
                array.flush()
            os.replace(draft, file)
    finally:
        pathlib.Path(draft).unlink(missing_ok=True)


def _widths(path, index) -> Widths:
    """{site: widths} of all experts. Raises InputError naming the first expert with other widths than those before."""
    found: Widths = {}
    for entry in index.entries:
        for site, own in store.widths(path, entry).items():
            if found.setdefault(site, own) != own:
                raise InputError(
                    f"{path / entry.folder}, site {site}: widths (input, output) = {own}; expected {found[site]}, as "
                    "the experts before it have"
                )
    return found


@jax.jit
def _direction(lora: LoRA) -> jax.Array:
    """The first right singular vector of each B^T A, float32[L,I]; 0 where the update s B^T A is 0."""
    vector_LI, value_L = leading(Factors(lora.a, lora.b))
    return jnp.where(((lora.scale != 0) & (value_L > 0))[:, None], vector_LI, 0)
