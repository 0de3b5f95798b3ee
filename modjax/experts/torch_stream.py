"""The format of torch.save before version 1.6: five pickles and the raw storages, one after another.

The pickles are a magic number, the version of the format, facts about the machine, the saved object, and the keys of
the storages in the order of the file. Each storage is its number of elements, int64, and the elements.
"""

import io
import pathlib
from typing import Any, NamedTuple

from modjax.errors import InputError
from modjax.experts import inert

START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number
VERSION = 1001
# Bytes of an element of each storage, to find the storage after it.
WIDTHS = {"Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1,
          "Bool": 1, "ComplexDouble": 16, "ComplexFloat": 8}  # fmt: skip


class Stream(NamedTuple):
    """The saved object, and where each storage lies."""

    content: Any
    places: dict[str, tuple[int, int]]  # {key of a storage: (offset in the file, size), in bytes}


def read(path: pathlib.Path) -> Stream:
    """Opens a file that begins with START. Raises InputError if it is damaged, and ValueError as `inert.load` does."""
    file = io.BytesIO(path.read_bytes())  # an open file would allocate as many bytes as a damaged pickle asks for
    _, version, machine = (inert.load(file) for _ in range(3))
    if version != VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise InputError(
            f"{path}: is of format {version!r:.40} from the machine {machine!r:.80}; expected {VERSION}, little-endian"
        )
    found: dict[str, inert.Storage] = {}
    content, keys = inert.load(file, found), inert.load(file)
    return Stream(content, _places(path, file, found, keys))


def _places(path, file: io.BytesIO, storages, keys) -> dict[str, tuple[int, int]]:
    size, places = len(file.getbuffer()), {}
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(key) if isinstance(key, str) else None
        width = WIDTHS.get(storage.kind.removesuffix("Storage")) if storage else None
        if width is None or int.from_bytes(file.read(8), "little") != storage.size:
            raise InputError(f"{path}: storage {key!r:.40} is damaged or of an unknown type")
        places[key] = (file.tell(), storage.size * width)
        file.seek(sum(places[key]))
    if set(places) != set(storages) or file.tell() > size:
        raise InputError(f"{path}: is truncated: it ends before its {len(storages)} storages do")
    return places
