"""`modjax adapt`: an expert for each new task from a few of its examples, scored beside the base model."""

import functools

from modjax import adapt
from modjax.cli import pieces, session
from modjax.cli.evaluate import as_json, from_json
from modjax.cli.stages import Stages
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.eval import Method, evaluate, summary
from modjax.eval.score import METRICS, Score
from modjax.experts.library import Library
from modjax.parallel.distributed import is_writer
from modjax.routing import load_router, oracle
from modjax.routing.poly import Poly


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, one expert a new task, and the tasks' scores in before.json and after.json."""
    _check(config.adapt)
    job = _Job(config, session.enter(workdir, config))
    library = job.adapted()
    before = job.score("before", Method("base"))
    print(table(before, job.score("after", Method(config.adapt.method, library, oracle(library)))))


def _check(options):
    if options.method not in METHODS:
        raise InputError(f"config.adapt.method = {options.method!r}; expected one of {', '.join(METHODS)}")
    if options.retrieve not in ("none", "random", "lora", "svd"):
        raise InputError(f"config.adapt.retrieve = {options.retrieve!r}; expected none, random, lora or svd")
    if options.retrieve != "none" and options.method not in RETRIEVING:
        raise InputError(
            f"config.adapt.retrieve = {options.retrieve!r}: the method {options.method!r} retrieves nothing; "
            f"{', '.join(RETRIEVING)} do"
        )


class _Job:
    """The model, the new tasks, and what is done with them in order."""

    def __init__(self, config, folder):
        self.config, self.options, self.stages = config, config.adapt, Stages(folder)
        self.tasks = adapt.few(new_tasks(config), self.options.examples, self.options.validation)
        self.model, self.settings = pieces.model(config), config.train.to_dict()
        self.run = self.settings | {"workdir": folder}

    @functools.cached_property
    def library(self) -> Library:
        return pieces.library(self.config)

    @functools.cached_property
    def retrieved(self) -> dict[str, tuple[str, ...]] | None:
        """Each task's experts of the library, by experts that are first trained on the tasks where need be."""
        by, n, own = self.options.retrieve, self.options.experts, None
        if by == "none":
            return None
        if by != "random":
            own = self.stages.library(
                "retrieval", lambda folder: adapt.lora(self.model, self.tasks, workdir=folder, **self.settings)
            )
        return self.stages.json(
            "retrieved", lambda: adapt.retrieve(self.library, self.tasks, n, by, own, seed=self.settings["seed"])
        )

    def adapted(self) -> Library:
        """One expert a task, by the method that the config names."""
        path = self.stages.folder / "library"
        if not path.exists():
            found = METHODS[self.options.method](self)
            if not is_writer():
                return found
            found.save(path)
        return Library.load(path)

    def lora(self):
        return adapt.lora(self.model, self.tasks, **self.run)

    def shared(self):
        if len(self.library) != 1:
            raise InputError(
                f"config.library has {len(self.library)} experts; the method 'shared' begins with a library of one"
            )
        return adapt.lora(self.model, self.tasks, self.library, **self.run)

    def mu(self):
        return adapt.mu(self.model, self.library, self.tasks, self.retrieved, **self.run)

    def poly(self, **own):
        own |= {"router": _router(self.options.router), "weights_rate": self.options.weights_rate}
        return adapt.poly(self.model, self.library, self.tasks, retrieved=self.retrieved, **own, **self.run)

    def poly_z(self):
        return self.poly(weights_only=True)

    def mhr(self):
        return self.poly(heads=self.options.heads)

    def lorahub(self):
        run = {key: self.run[key] for key in ("length", "system", "too_long", "seed", "workdir")}
        return adapt.lorahub(self.model, self.library, self.tasks, self.retrieved, self.options.budget, **run)

    def cat(self):
        own = {"groups": {task: (task,) for task in self.tasks}, "rank": None}  # as long as the experts together
        return adapt.cat(self.model, self.library, self.tasks, **(self.run | own))

    def score(self, name, method):
        """Evaluates the tasks where that is not done yet, and keeps NAME.json."""

        def scored():
            return as_json(*evaluate(self.model, method, self.tasks, **self.config.evaluate))

        return from_json(self.stages.json(name, scored))


RETRIEVING = {"mu": _Job.mu, "poly": _Job.poly, "poly_z": _Job.poly_z, "mhr": _Job.mhr, "lorahub": _Job.lorahub}
METHODS = {"lora": _Job.lora, "shared": _Job.shared, "cat": _Job.cat, **RETRIEVING}


def new_tasks(config) -> Tasks:
    """The held-out tasks of those that the config names; all of them where none is held out."""
    tasks = pieces.tasks(config)
    return tasks.held_out or tasks


def table(before: dict[str, Score], after: dict[str, Score]) -> str:
    """A line a task, and one of their means: each metric before and after."""
    lines = [f"{'':24}" + "".join(f"{metric:>19}" for metric in METRICS)]
    for name, own in [*((task, [task]) for task in after), ("mean", list(after))]:
        old, new = summary(before, own), summary(after, own)
        lines.append(f"{name:24}" + "".join(f"{old[metric]:9.3f} -> {new[metric]:6.3f}" for metric in METRICS))
    return "\n".join(lines)


def _router(path: str) -> Poly | None:
    if not path:
        return None
    router = load_router(path)
    if not isinstance(router, Poly):
        raise InputError(f"{path}: holds a {type(router).__name__} router; expected one of Poly training")
    return router
