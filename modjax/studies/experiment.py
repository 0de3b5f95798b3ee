"""An experiment: the model, tasks and libraries that methods are made of, and the settings they are scored by."""

import copy
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from modjax import arguments
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval.sample import Sample
from modjax.experts.library import Library
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.studies import content

DEFAULT = "library"  # the name of the library that a method has if it names none


class Experiment:
    """The parts that all methods of an experiment share."""

    def __init__(
        self,
        model: Model | Callable[[], Model],
        tasks: Tasks | Callable[[], Tasks],
        libraries: Mapping[str, Library | str | pathlib.Path] | None = None,
        sample: Sample = Sample(),  # noqa: B008, frozen
        max_new_tokens: int = 64,
        train: Mapping[str, Any] | None = None,
        adapt: Mapping[str, Any] | None = None,
        workdir: str | pathlib.Path | None = None,
    ):
        """Collects the parts. Libraries, and a model and tasks given as functions that load them, are read when needed.

        Args:
          libraries: {name: a library, or the folder of one}; "library" is the one that methods have by default. Methods
            may also name a library by its folder.
          sample: which examples methods are scored on. Its system message is also that of prompts that routers read.
          max_new_tokens: length at which answers are cut.
          train: settings of training, for adaptation; see `modjax.train.settings.Settings`.
          adapt: the options of adaptation that methods need not give; see `modjax.studies.adaptation`.
          workdir: the folder for work that methods share or keep; None: nothing is kept, and adaptation is refused.
        """
        self.libraries = _libraries({} if libraries is None else libraries)
        self.train = arguments.mapping("train", {} if train is None else train, "settings of training")
        self.adapt = arguments.mapping("adapt", {} if adapt is None else adapt, "options of adaptation")
        self.sample = arguments.instance("sample", sample, Sample)
        self.max_new_tokens = arguments.whole("max_new_tokens", max_new_tokens, least=1)
        self.workdir = arguments.optional(arguments.path)("workdir", workdir)
        for name, value, kind in (("model", model, Model), ("tasks", tasks, Tasks)):
            if not isinstance(value, kind) and not callable(value):
                raise arguments.refused(name, value, f"a {kind.__name__} object, or a function that loads it")
        self._model, self._tasks = model, tasks
        self._read: dict[str, tuple[str, Library]] = {}  # with the digest that it had when it was read

    def at(self, workdir: str | pathlib.Path) -> "Experiment":
        """The same experiment, with the libraries that it has read, and another workdir."""
        other = copy.copy(self)
        other.workdir = arguments.path("workdir", workdir)
        return other

    @functools.cached_property
    def model(self) -> Model:
        return self._model if isinstance(self._model, Model) else self._model()

    @functools.cached_property
    def tasks(self) -> Tasks:
        return self._tasks if isinstance(self._tasks, Tasks) else self._tasks()

    def made_of(self) -> dict[str, Any]:
        """The inputs of every method's results, as digests and plain settings."""
        inputs = content.of_study(self.model, self.tasks, self.train, self.sample, self.max_new_tokens)
        return inputs | {"adapt": self.adapt}

    def library(self, name: str) -> Library:
        """A library by its name or folder, read once until its folder changes. Raises InputError if there is none."""
        found = self.libraries.get(name, name)
        if isinstance(found, Library):
            return found
        self.check_library(name)
        digest, read = content.of_library(found), self._read.get(name)
        if read is None or read[0] != digest:
            read = self._read[name] = digest, Library.load(found)
        return read[1]

    def folder_of(self, name: str) -> pathlib.Path | None:
        """The folder of a library; None for one that is in memory."""
        found = self.libraries.get(name, name)
        return None if isinstance(found, Library) else pathlib.Path(found)

    def check_library(self, name: str) -> None:
        """Raises InputError unless the name is that of a library or of an existing folder."""
        found = self.libraries.get(name, name)
        if isinstance(found, Library):
            return
        if not str(found):
            raise InputError(f"library {name!r} has no folder; expected the folder of a saved library")
        if name not in self.libraries and not from_first(pathlib.Path(found).is_dir):
            raise InputError(f"no library {name!r}; expected a folder, or one of {', '.join(self.libraries) or 'none'}")


def _libraries(libraries) -> dict[str, Library | pathlib.Path | str]:
    """The libraries by name, in memory or as folders; "" is a library without a folder."""
    found = arguments.mapping("libraries", libraries, "{name: a library, or its folder}")
    for name, value in found.items():
        arguments.title("library name", name)  # "" stands for no library
        if not isinstance(value, Library) and value != "":
            arguments.path(f"libraries[{name!r}]", value)
    return found
