"""The forms in which experts lie on disk, told by the files of a folder."""

import os
import pathlib

from modjax.experts.index import INDEX
from modjax.experts.peft import CONFIG
from modjax.files import os_errors


def form_of(path: str | os.PathLike) -> str | None:
    """ "library", "peft", "mttl", or None for another folder, for a file, and for a path where nothing is."""
    path = pathlib.Path(path)
    with os_errors(path, "read"):
        if (path / INDEX).is_file():
            return "library"
        if any(path.glob("*.meta")):
            return "mttl"
        return "peft" if any(path.glob(CONFIG)) or any(path.glob(f"*/{CONFIG}")) else None
