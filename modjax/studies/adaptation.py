"""Adaptation to held-out tasks by name: the functions of `modjax.adapt` with the options of a config."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from modjax import adapt, digest
from modjax.data.tasks import Tasks
from modjax.errors import InputError, suggestion
from modjax.experts.library import Library
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.routing.base import load_router
from modjax.routing.poly import Poly
from modjax.studies import content
from modjax.studies.experiment import Experiment
from modjax.studies.stages import Stages

RETRIEVALS = ("none", "random", "lora", "svd")


def adapted(
    experiment: Experiment, library: Library | None, options: Mapping[str, Any], folder: pathlib.Path | None
) -> Library:
    """One expert per held-out task, from a few of its examples.

    Args:
      library: the experts that the method starts from, if it does.
      options: those that differ from `experiment.adapt`.
      folder: for the method's work; what is done there is not repeated, and adaptation.json ties it to what it is made
        of. The experts by which others are retrieved are trained once for all methods, in the experiment's workdir.

    Raises InputError without a folder, for the folder of another adaptation, without held-out tasks, and for options
    that do not fit.
    """
    if folder is None:
        raise InputError("adaptation needs a folder for its work; expected a workdir")
    if not experiment.tasks.held_out:
        raise InputError(f"no task is held out; expected some to adapt to among {', '.join(experiment.tasks)}")
    options = {**experiment.adapt, **options}
    check_options(options, "adapt", experiment.adapt)
    tasks = adapt.few(experiment.tasks.held_out, options["examples"], options["validation"])
    job = _Job(experiment, tasks, library, options, folder)
    path = folder / "library"
    Stages(folder).claim(job.made_of(), "adaptation", [path.name])
    if not from_first(path.exists):
        found = METHODS[options["method"]](job)
        from_first(lambda: found.save(path))
    return Library.load(path)


def check_options(options: Mapping[str, Any], where: str, known: Mapping[str, Any]) -> None:
    """Raises InputError naming `where` for an unknown option, method or retrieval, and for conflicting ones.

    known: the options with their defaults.
    """
    for option in options:
        if option not in known:
            raise InputError(f"{where}: unknown option {option!r}; {suggestion(option, known)}")
    method, retrieve = options["method"], options["retrieve"]
    if method not in METHODS:
        raise InputError(f"{where}.method: unknown method {method!r}; {suggestion(method, METHODS)}")
    if retrieve not in RETRIEVALS:
        raise InputError(f"{where}.retrieve = {retrieve!r}; expected one of {', '.join(RETRIEVALS)}")
    if retrieve != "none" and method not in RETRIEVING:
        raise InputError(
            f"{where}.retrieve = {retrieve!r}: the method {method!r} retrieves no experts; {', '.join(RETRIEVING)} do"
        )


@dataclasses.dataclass(frozen=True)
class _Job:
    """One method of adaptation; `tasks` have as many examples as may be used."""

    experiment: Experiment
    tasks: Tasks
    library: Library | None
    options: Mapping[str, Any]
    folder: pathlib.Path

    @property
    def model(self) -> Model:
        return self.experiment.model

    @property
    def training(self) -> dict[str, Any]:
        """The inputs of training on the tasks, as plain data with digests."""
        return content.of_training(self.model, self.tasks, self.experiment.train)

    def made_of(self) -> dict[str, Any]:
        """All that the experts depend on."""
        router = self.options.get("router")
        return {
            "options": dict(self.options),
            **self.training,
            "library": None if self.library is None else self.library.fingerprint,
            "router": digest.of_file(pathlib.Path(router)) if router else None,
        }

    @functools.cached_property
    def experts(self) -> Library:
        if self.library is None:
            raise InputError(f"adaptation by {self.options['method']!r} starts from a library; expected one")
        return self.library

    @functools.cached_property
    def run(self) -> dict[str, Any]:
        return {**self.experiment.train, "workdir": self.folder}

    @functools.cached_property
    def retrieved(self) -> dict[str, tuple[str, ...]] | None:
        """The experts of each task; None for all."""
        by, n = self.options["retrieve"], self.options["experts"]
        if by == "none":
            return None
        own, seed = (None if by == "random" else self._own()), self.experiment.train["seed"]
        return Stages(self.folder).json(
            "retrieved", lambda: adapt.retrieve(self.experts, self.tasks, n, by, own, seed=seed)
        )

    def _own(self) -> Library:
        """An expert of each new task, trained on it alone."""
        shots = f"{self.options['examples']}-{self.options['validation']}"
        name = f"retrieval-{shots}-{digest.of_json(self.training)}"  # so other inputs have another folder
        return Stages(self.experiment.workdir or self.folder).library(
            name, lambda folder: adapt.lora(self.model, self.tasks, workdir=folder, **self.experiment.train)
        )

    def lora(self):
        return adapt.lora(self.model, self.tasks, **self.run)

    def shared(self):
        if len(self.experts) != 1:
            raise InputError(f"adaptation by 'shared' starts from one expert; the library has {len(self.experts)}")
        return adapt.lora(self.model, self.tasks, self.experts, **self.run)

    def mu(self):
        return adapt.mu(self.model, self.experts, self.tasks, self.retrieved, **self.run)

    def poly(self, **own):
        own |= {"router": _poly_router(self.options["router"]), "weights_rate": self.options["weights_rate"]}
        return adapt.poly(self.model, self.experts, self.tasks, retrieved=self.retrieved, **own, **self.run)

    def poly_z(self):
        return self.poly(weights_only=True)

    def mhr(self):
        return self.poly(heads=self.options["heads"])

    def lorahub(self):
        read = {key: self.run[key] for key in ("length", "system", "too_long", "seed", "workdir")}
        return adapt.lorahub(
            self.model, self.experts, self.tasks, self.retrieved, budget=self.options["budget"], **read
        )

    def cat(self):
        own = {"groups": {task: (task,) for task in self.tasks}, "learning_rate": self.options["cat_rate"]}
        run = {key: value for key, value in self.run.items() if key != "rank"}  # the sum of the experts' ranks
        return adapt.cat(self.model, self.experts, self.tasks, **(run | own))


RETRIEVING = {"mu": _Job.mu, "poly": _Job.poly, "poly_z": _Job.poly_z, "mhr": _Job.mhr, "lorahub": _Job.lorahub}
METHODS = {"lora": _Job.lora, "shared": _Job.shared, "cat": _Job.cat, **RETRIEVING}


def _poly_router(path: str) -> Poly | None:
    if not path:
        return None
    router = load_router(path)
    if not isinstance(router, Poly):
        raise InputError(f"{path}: holds a {type(router).__name__} router; expected one of Poly training")
    return router
