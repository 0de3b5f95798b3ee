"""Files written by torch.save, read without unpickling.

Such a file is a zip archive of raw storages, data/KEY, and data.pkl, a pickle that describes tensors as views of the
storages; `modjax.experts.inert` reads it. `modjax.experts.torch_stream` has the format before torch 1.6.
"""

import math
import pathlib
import struct
import zipfile

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts import inert, torch_stream

STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": jnp.bfloat16}


class TorchFile:
    """A file written by torch.save.

    Attributes:
      content: the saved object; see `inert.load`.
    """

    def __init__(self, path: pathlib.Path):
        """Raises InputError if the file is not a complete one of torch.save, or its pickle is not supported."""
        self.path = path
        try:
            with open(path, "rb") as file:
                older = file.read(len(torch_stream.START)) == torch_stream.START
            self.content, self._places = torch_stream.read(path) if older else (inert.load(self._program()), None)
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise InputError(
                f"{path}: its pickle is damaged or was not written by torch.save ({_line(error)})"
            ) from error

    def read(self, name: str, tensor: inert.Tensor) -> np.ndarray:
        """The values of a tensor, in the dtype of the file; name: for messages.

        Raises InputError if its storage has a type other than STORAGES or is too small.
        """
        storage = tensor.storage
        if storage.kind not in STORAGES:
            raise InputError(f"{self.path}: {name!r} is a {storage.kind}; expected one of {', '.join(STORAGES)}")
        raw = self._raw(storage.key)
        dtype = np.dtype(STORAGES[storage.kind])
        end = tensor.offset + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if len(raw) != storage.size * dtype.itemsize or end >= storage.size or math.prod(tensor.shape) > storage.size:
            raise InputError(f"{self.path}: {name!r} of shape {tensor.shape} does not fit in its {len(raw)} bytes")
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        flat = np.frombuffer(raw, dtype)[tensor.offset :]
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()

    def _program(self) -> bytes:
        with self._archive() as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickled) != 1:
                raise InputError(
                    f"{self.path}: is a zip archive without data.pkl; expected a file written by torch.save"
                )
            self._root = pickled[0].removesuffix("data.pkl")
            order = self._root + "byteorder"
            if order in archive.namelist() and self._part(archive, order) != b"little":
                raise InputError(f"{self.path}: was written on a big-endian machine; expected little-endian numbers")
            return self._part(archive, pickled[0])

    def _raw(self, key) -> bytes:
        """The bytes of a storage."""
        if self._places is None:
            with self._archive() as archive:
                return self._part(archive, f"{self._root}data/{key}")
        offset, size = self._places[key]
        return np.fromfile(self.path, np.uint8, size, offset=offset).tobytes()

    def _archive(self):
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: is truncated or not a file of torch.save ({_line(error)})") from error

    def _part(self, archive, name) -> bytes:
        try:
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{self.path}: {name} is compressed; torch.save writes it uncompressed")
            return archive.read(name)
        except (KeyError, zipfile.BadZipFile, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: {name} cannot be read ({_line(error)})") from error


def _line(error):
    return " ".join(str(error).split())[:200]
