"""The methods of `modjax.adapt` by name, with the options of a config: an expert of each new task, in one library."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from modjax import adapt
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.model import Model
from modjax.parallel.distributed import is_writer
from modjax.routing import load_router
from modjax.routing.poly import Poly
from modjax.studies.stages import Stages

RETRIEVALS = ("none", "random", "lora", "svd")


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """One method on the new tasks, from the experts of a library.

    Attributes:
      tasks: as `modjax.adapt.few` gives them: no more examples than may be seen.
      options: as `config.adapt`.
      settings: as `config.train`.
      stages: of the job; the experts by which others are retrieved are trained once for all methods in it.
      folder: where the method's own work is kept; what is done there is not done again.
      given: the library, where the method takes one.
    """

    model: Model
    tasks: Tasks
    options: Mapping[str, Any]
    settings: Mapping[str, Any]
    stages: Stages
    folder: pathlib.Path
    given: Callable[[], Library]

    def adapted(self) -> Library:
        """One expert a task."""
        path = self.folder / "library"
        if not path.exists():
            found = METHODS[self.options["method"]](self)
            if not is_writer():
                return found
            found.save(path)
        return Library.load(path)

    @functools.cached_property
    def library(self) -> Library:
        return self.given()

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        return {**self.settings, "workdir": self.folder}

    @functools.cached_property
    def retrieved(self) -> dict[str, tuple[str, ...]] | None:
        """Each task's experts of the library; None for all."""
        by, n = self.options["retrieve"], self.options["experts"]
        if by == "none":
            return None
        own, seed = (None if by == "random" else self._own()), self.settings["seed"]
        return Stages(self.folder).json(
            "retrieved", lambda: adapt.retrieve(self.library, self.tasks, n, by, own, seed=seed)
        )

    def _own(self) -> Library:
        """An expert of each new task, trained on it alone."""
        name = f"retrieval-{self.options['examples']}-{self.options['validation']}"
        return self.stages.library(
            name, lambda folder: adapt.lora(self.model, self.tasks, workdir=folder, **self.settings)
        )

    def lora(self):
        return adapt.lora(self.model, self.tasks, **self.run)

    def shared(self):
        if len(self.library) != 1:
            raise InputError(
                f"a library of {len(self.library)} experts: the method 'shared' begins with a library of one"
            )
        return adapt.lora(self.model, self.tasks, self.library, **self.run)

    def mu(self):
        return adapt.mu(self.model, self.library, self.tasks, self.retrieved, **self.run)

    def poly(self, **own):
        own |= {"router": _poly_router(self.options["router"]), "weights_rate": self.options["weights_rate"]}
        return adapt.poly(self.model, self.library, self.tasks, retrieved=self.retrieved, **own, **self.run)

    def poly_z(self):
        return self.poly(weights_only=True)

    def mhr(self):
        return self.poly(heads=self.options["heads"])

    def lorahub(self):
        run = {key: self.run[key] for key in ("length", "system", "too_long", "seed", "workdir")}
        return adapt.lorahub(self.model, self.library, self.tasks, self.retrieved, self.options["budget"], **run)

    def cat(self):
        own = {"groups": {task: (task,) for task in self.tasks}, "rank": None}  # as long as the experts together
        own["learning_rate"] = self.options["cat_rate"]
        return adapt.cat(self.model, self.library, self.tasks, **(self.run | own))


RETRIEVING = {
    "mu": Adaptation.mu,
    "poly": Adaptation.poly,
    "poly_z": Adaptation.poly_z,
    "mhr": Adaptation.mhr,
    "lorahub": Adaptation.lorahub,
}
METHODS = {"lora": Adaptation.lora, "shared": Adaptation.shared, "cat": Adaptation.cat, **RETRIEVING}


def check(options: Mapping[str, Any], where: str = "config.adapt") -> None:
    """Raises InputError for a method or a retrieval that there is not, and where one does not go with the other."""
    method, retrieve = options["method"], options["retrieve"]
    if method not in METHODS:
        raise InputError(f"{where}.method = {method!r}; expected one of {', '.join(METHODS)}")
    if retrieve not in RETRIEVALS:
        raise InputError(f"{where}.retrieve = {retrieve!r}; expected one of {', '.join(RETRIEVALS)}")
    if retrieve != "none" and method not in RETRIEVING:
        raise InputError(
            f"{where}.retrieve = {retrieve!r}: the method {method!r} retrieves nothing; {', '.join(RETRIEVING)} do"
        )


def _poly_router(path: str) -> Poly | None:
    if not path:
        return None
    router = load_router(path)
    if not isinstance(router, Poly):
        raise InputError(f"{path}: holds a {type(router).__name__} router; expected one of Poly training")
    return router
