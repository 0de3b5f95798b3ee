"""The stages of a long job: each leaves a file or folder, takes its time down, and is not repeated."""

import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

from modjax.experts.library import Library
from modjax.files import read_json, write_json


class Stages:
    """A job's folder, its finished stages and the seconds that each took, over all its attempts."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._times = folder / "stages.json"

    @property
    def seconds(self) -> dict[str, float]:
        """{stage: seconds} in the order in which they were finished."""
        return read_json(self._times) if self._times.exists() else {}

    def library(self, name: str, train: Callable[[pathlib.Path], Library]) -> Library:
        """The library of a training stage: loaded, or trained in its own folder and saved there."""
        path = self.folder / name / "library"
        if not path.exists():
            self._timed(f"train {name}", lambda: train(self.folder / name).save(path))
        return Library.load(path)

    def json(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of any other stage, kept as NAME.json."""
        path = self.path(name)
        if not path.exists():
            self._timed(name, lambda: write_json(path, make()))
        return read_json(path)

    def path(self, name: str) -> pathlib.Path:
        """The file of a stage, whatever its name holds."""
        return self.folder / (re.sub(r"[^\w.,()+=-]", "-", name) + ".json")

    def _timed(self, name, work):
        print(f"{name} ...", flush=True)
        start = time.perf_counter()
        work()
        write_json(self._times, self.seconds | {name: round(time.perf_counter() - start, 2)})
