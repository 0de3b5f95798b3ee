"""The stages of a long study: each leaves a file or folder, records its time, and is not repeated."""

import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from modjax import arguments, compile_cache
from modjax.claim import claim
from modjax.experts.library import Library
from modjax.files import own_name, read_json, write_json
from modjax.parallel.distributed import from_first


class Stages:
    """The folder of a study, its finished stages, and the seconds that each took over all attempts.

    With several processes all run a stage; the first alone looks at and writes files. Programs that earlier stages have
    compiled are dropped when there are many.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = arguments.path("folder", folder)
        self._times = self.folder / "stages.json"

    def claim(self, inputs: dict[str, Any], name: str = "inputs", kept: Iterable[str] = ("stages.json",)) -> None:
        """Ties the folder to the inputs of its results by NAME.json. Raises InputError if they are of other inputs.

        kept: the files and folders of these results.
        """
        from_first(lambda: claim(self.folder / f"{name}.json", inputs, [self.folder / one for one in kept]))

    @property
    def seconds(self) -> dict[str, float]:
        """{stage: seconds} in the order in which they were finished."""
        return from_first(lambda: read_json(self._times) if self._times.exists() else {})

    def library(self, name: str, train: Callable[[pathlib.Path], Library]) -> Library:
        """The library of a training stage: loaded, or trained in its own folder and saved there."""
        return Library.load(self.kept(name, "library", train))

    def kept(self, name: str, part: str, train: Callable[[pathlib.Path], Any]) -> pathlib.Path:
        """The folder NAME/PART with the result of a training stage, a library or a model; trained if it is missing."""
        path = self.folder / name / part
        if not from_first(path.exists):
            self._timed(f"train {name}", lambda: _save(train(self.folder / name), path))
        return path

    def json(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of any other stage, kept as NAME.json."""
        path = self.path(name)
        if not from_first(path.exists):
            self._timed(name, lambda: _write(path, make()))
        return from_first(lambda: read_json(path))

    def current(self, name: str, made_of: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The value of a stage that is made again when its inputs change; its file has them as "made_of"."""
        from_first(lambda: _drop_outdated(self.path(name), made_of))
        return self.json(name, lambda: {"made_of": made_of, **make()})

    def path(self, name: str) -> pathlib.Path:
        """The file of a stage, whose name may be any text; a first space, as after its kind, becomes a dash."""
        return self.folder / (own_name(name.replace(" ", "-", 1)) + ".json")

    def _timed(self, name, work):
        print(f"{name} ...", flush=True)
        compile_cache.trim()
        start = time.perf_counter()
        work()
        _write(self._times, self.seconds | {name: round(time.perf_counter() - start, 2)})


def _drop_outdated(path, made_of) -> None:
    if path.exists() and read_json(path)["made_of"] != made_of:
        path.unlink()


def _save(made, path):
    from_first(lambda: made.save(path))


def _write(path, value):
    from_first(lambda: write_json(path, value))
