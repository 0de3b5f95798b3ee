"""The weights of a PEFT adapter: adapter_model.safetensors, else adapter_model.bin, read without unpickling."""

import functools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from modjax.errors import InputError
from modjax.experts import inert
from modjax.experts.torch_file import STORAGES, TorchFile
from modjax.models import safetensors_file

NAMES = WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Stored(NamedTuple):
    """A tensor in a file."""

    dtype: str  # float32, float16 or bfloat16; as the file names it for another one
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def find(folder: pathlib.Path) -> pathlib.Path:
    """The file that `read` reads: the safetensors file, unless only the other one exists."""
    pickled = folder / PICKLED
    return pickled if pickled.exists() and not (folder / WEIGHTS).exists() else folder / WEIGHTS


def read(file: pathlib.Path) -> dict[str, Stored]:
    """{name: tensor} of a file, sorted by name. Raises InputError naming the file if it is missing or damaged."""
    found = _of_torch(TorchFile(file)) if file.name == PICKLED else _of_safetensors(file)
    return dict(sorted(found.items()))


def _of_safetensors(file):
    return {
        name: Stored(
            DTYPES.get(tensor.dtype, tensor.dtype),
            tensor.shape,
            functools.partial(safetensors_file.read, name, tensor),
        )
        for name, tensor in safetensors_file.tensors(file).items()
    }


def _of_torch(file):
    content = file.content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, inert.Tensor) for name, tensor in content.items()
    ):
        raise InputError(f"{file.path}: holds something other than tensors; expected a dict of names and tensors")
    return {
        name: Stored(_dtype(tensor.storage.kind), tensor.shape, functools.partial(file.read, name, tensor))
        for name, tensor in content.items()
    }


def _dtype(kind):
    return np.dtype(STORAGES[kind]).name if kind in STORAGES else kind
