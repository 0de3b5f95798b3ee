"""Files written by torch.save, read without unpickling.

Such a file is a zip archive of raw storages, data/KEY, and data.pkl, a pickle that describes tensors as views of the
storages; `modjax.experts.inert` reads it.
"""

import math
import pathlib
import struct
import zipfile

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts import inert

STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "BFloat16Storage": jnp.bfloat16}
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # first bytes of files that torch wrote before version 1.6


class TorchFile:
    """A file written by torch.save.

    Attributes:
      content: the saved object; see `inert.load`.
    """

    def __init__(self, path: pathlib.Path):
        """Raises InputError if the file is not a complete archive of torch.save, or its pickle is not supported."""
        self.path = path
        with self._archive() as archive:
            pickled = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickled) != 1:
                raise InputError(f"{path}: is a zip archive without data.pkl; expected a file written by torch.save")
            self._root = pickled[0].removesuffix("data.pkl")
            order = self._root + "byteorder"
            if order in archive.namelist() and self._read(archive, order) != b"little":
                raise InputError(f"{path}: was written on a big-endian machine; expected little-endian numbers")
            program = self._read(archive, pickled[0])
        try:
            self.content = inert.load(program)
        except ValueError as error:
            raise InputError(
                f"{path}: its data.pkl is damaged or was not written by torch.save ({_line(error)})"
            ) from error

    def read(self, name: str, tensor: inert.Tensor) -> np.ndarray:
        """The values of a tensor, in the dtype of the file; name: for messages.

        Raises InputError if its storage has a type other than STORAGES or is too small.
        """
        storage = tensor.storage
        if storage.kind not in STORAGES:
            raise InputError(f"{self.path}: {name!r} is a {storage.kind}; expected one of {', '.join(STORAGES)}")
        with self._archive() as archive:
            raw = self._read(archive, f"{self._root}data/{storage.key}")
        dtype = np.dtype(STORAGES[storage.kind])
        end = tensor.offset + sum(
            (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
        )
        if len(raw) != storage.size * dtype.itemsize or end >= storage.size or math.prod(tensor.shape) > storage.size:
            raise InputError(f"{self.path}: {name!r} of shape {tensor.shape} does not fit in its {len(raw)} bytes")
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        flat = np.frombuffer(raw, dtype)[tensor.offset :]
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides).copy()

    def _archive(self):
        try:
            with open(self.path, "rb") as file:
                start = file.read(len(LEGACY))
            if start == LEGACY:
                raise InputError(
                    f"{self.path}: is in the format of torch before version 1.6. Convert it: "
                    "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
                )
            return zipfile.ZipFile(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from error
        except (zipfile.BadZipFile, struct.error, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: is truncated or not a file of torch.save ({_line(error)})") from error

    def _read(self, archive, name) -> bytes:
        try:
            if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{self.path}: {name} is compressed; torch.save writes it uncompressed")
            return archive.read(name)
        except (KeyError, zipfile.BadZipFile, struct.error, EOFError, OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{self.path}: {name} cannot be read ({_line(error)})") from error


def _line(error):
    return " ".join(str(error).split())[:200]
