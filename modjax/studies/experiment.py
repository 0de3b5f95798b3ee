"""An experiment: the model, tasks and libraries that methods are made of, and the settings they are scored by."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.sample import Sample
from modjax.experts.library import Library
from modjax.model import Model

DEFAULT = "library"  # the name of the library that a method has if it names none


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts that all methods of an experiment share.

    Attributes:
      libraries: {name: a library, or the folder of one}; "library" is the one that methods have by default. Methods may
        also name a library by its folder.
      sample: which examples methods are scored on. Its system message is also that of the prompts that routers read.
      max_new_tokens: length at which answers are cut.
      train: settings of training, for adaptation; see `modjax.train.settings.Settings`.
      adapt: the options of adaptation that methods need not give; see `modjax.studies.adaptation`.
      workdir: the folder for work that methods share or keep; None: nothing is kept, and adaptation is refused.
    """

    model: Model
    tasks: Tasks
    libraries: Mapping[str, Library | str | pathlib.Path] = dataclasses.field(default_factory=dict)
    sample: Sample = Sample()
    max_new_tokens: int = 64
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    workdir: pathlib.Path | None = None

    def library(self, name: str) -> Library:
        """A library by its name or folder, read once. Raises InputError if there is none."""
        if name not in self._read:
            found = self.libraries.get(name, name)
            if not isinstance(found, Library):
                self.check_library(name)
                found = Library.load(found)
            self._read[name] = found
        return self._read[name]

    def folder_of(self, name: str) -> pathlib.Path | None:
        """The folder of a library; None for one that is in memory."""
        found = self.libraries.get(name, name)
        return None if isinstance(found, Library) else pathlib.Path(found)

    def check_library(self, name: str) -> None:
        """Raises InputError unless the name is a library's, or an existing folder."""
        found = self.libraries.get(name, name)
        if not found:
            raise InputError(f"library {name!r} has no folder; expected the folder of a saved library")
        if name not in self.libraries and not pathlib.Path(found).is_dir():
            known = ", ".join(self.libraries) or "none"
            raise InputError(f"no library {name!r}; expected a folder, or one of {known}")

    @functools.cached_property
    def _read(self) -> dict[str, Library]:
        return {}
