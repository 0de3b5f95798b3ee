"""The study of arXiv 2405.11157: libraries at equal compute, methods with tuned settings, several seeds, its claims.

For each seed: private, shared, MBC, random and embedding libraries are trained on equally many rows; each method's
settings are chosen on the validation split of the development tasks, some trained on and some not; all methods are then
scored on the test split of the other tasks, which nothing was chosen by.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modjax import arguments, digest, metrics
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError
from modjax.eval.analysis import analyse
from modjax.eval.evaluation import evaluate
from modjax.eval.hierarchy import Figures, Run
from modjax.eval.intervals import Estimate
from modjax.eval.sample import Sample
from modjax.eval.score import Score, as_json, from_json, joined, summary
from modjax.files import os_errors, own_name, plain
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.studies import methods, results
from modjax.studies.benchmarks import benchmarks
from modjax.studies.claims import CLAIMS, Results
from modjax.studies.experiment import Experiment
from modjax.studies.libraries import Libraries
from modjax.studies.stages import Stages
from modjax.studies.transfer import transfer
from modjax.train.settings import Settings

Line = Mapping[str, Any]  # a method, see modjax.studies.methods
JUDGED = ("loss", "rouge_l")  # the metrics that claims are judged by
LOSS_ALONE = 1  # new tokens where answers do not count
ANALYSED = ("Arrow (private)", "Arrow (MBC)")  # whose use of experts the report draws, of the first seed
UNANALYSED = ("uniform", "oracle")  # routers that look at no token


@dataclasses.dataclass(frozen=True)
class Study:
    """All that a study's results depend on.

    Attributes:
      tasks: those to train on, and held-out ones; held_out: names of more that are kept out of training.
      lines: {method: its line, or a list of lines of which the best on the development tasks is taken}. A line's
        "library" is a kind of `modjax.studies.libraries`.
      development: the tasks, trained on and held out, by which settings are chosen; they are not reported.
      settings: of the private library, without its seed; see `modjax.train.settings.Settings`.
      cluster, rows, clustering: as in `modjax.studies.libraries.Libraries`.
      sample, max_new_tokens: of the reported scores, as in `modjax.evaluate`.
      tuning: examples of each development task.
      adapt: the options of adaptation, see `modjax.studies.adaptation`; adapted: settings of its training that differ.
      pairs: pairs of the transfer study, with the first seed; 0: none.
      benchmarks: arguments of `modjax.studies.benchmarks`, as data and names, besides experiment and method; {}: none.
    """

    model: Model
    tasks: Tasks
    lines: Mapping[str, Line | Sequence[Line]]
    settings: Mapping[str, Any]
    cluster: Mapping[str, Any]
    held_out: Sequence[str] = ()
    development: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    rows: Mapping[str, int] = dataclasses.field(default_factory=dict)
    clustering: float = 0.4
    sample: Sample = Sample()  # noqa: RUF009, frozen
    max_new_tokens: int = 64
    tuning: int = 8
    adapt: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    adapted: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pairs: int = 0
    benchmarks: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        arguments.check_fields(self, ("model",), arguments.instance, Model)
        arguments.check_fields(self, ("sample",), arguments.instance, Sample)
        arguments.check_fields(self, ("max_new_tokens", "tuning"), arguments.whole, least=1)
        arguments.check_fields(self, ("pairs",), arguments.whole, least=0)
        arguments.check_fields(self, ("clustering",), arguments.number, least=0, below=1)
        for name in ("lines", "settings", "cluster", "rows", "adapt", "adapted", "benchmarks"):
            arguments.check_fields(self, (name,), arguments.mapping, "a dictionary")
        arguments.made(Settings, dict(self.settings))
        seeds = arguments.items("seeds", self.seeds, "a list of seeds")
        tasks = checked_tasks(self.tasks)
        kept_out = {
            name: dataclasses.replace(task, held_out=True) for name, task in tasks.select(self.held_out).items()
        }
        made = {
            "seeds": tuple(arguments.seed("an item of seeds", seed) for seed in seeds),
            "tasks": Tasks({**tasks, **kept_out}.values()),
            "development": tuple(tasks.select(self.development)),
            "lines": {name: _alternatives(name, line) for name, line in self.lines.items()},
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        choosing = [name for name, own in self.lines.items() if len(own) > 1]
        if choosing and not self.development:
            raise InputError(f"lines[{choosing[0]!r}] is a list: expected development tasks, to choose by")
        if not (self.seeds and self.lines):
            raise InputError(f"{len(self.seeds)} seeds and {len(self.lines)} lines: expected at least one of each")

    @functools.cached_property
    def reported(self) -> Tasks:
        """The tasks that no setting was chosen by."""
        return Tasks(task for name, task in self.tasks.items() if name not in self.development)

    @functools.cached_property
    def developed(self) -> Tasks:
        """The tasks that settings are chosen by."""
        return self.tasks.select(self.development)

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """The libraries that the lines name."""
        return tuple(sorted({line["library"] for own in self.lines.values() for line in own} - {""}))


def study(folder: str | pathlib.Path, plan: Study) -> dict[str, Any]:
    """Runs a study, stage by stage; the folder keeps what is done, which is not repeated.

    Args:
      folder: for seed-0/, seed-1/, ..., each with libraries, choices and scores.

    Returns results for `modjax.report`, with intervals over seeds, tasks and examples; among them "claims", see
    `modjax.studies.claims`; "chosen", {seed: {method: its line}}; and "development", the tasks of these choices.
    """
    folder, plan = arguments.path("folder", folder), arguments.instance("plan", plan, Study)
    with os_errors(folder, "written"):
        from_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    runs = [_Seed(plan, folder / f"seed-{seed}", seed) for seed in plan.seeds]
    scores = [run.scores() for run in runs]
    routings = [run.routing() for run in runs]
    parts = {"in_distribution": plan.reported.training, "held_out": plan.reported.held_out}
    figures = {part: _figures(scores, plan, list(tasks)) for part, tasks in parts.items()}
    zero_shot = _zero_shot([run.benchmarks() for run in runs]) if plan.benchmarks else {}
    judged = Results(**figures, transfer=runs[0].transfer() if plan.pairs else None)
    seconds = {f"seed {run.seed}: {name}": time for run in runs for name, time in run.stages.seconds.items()}
    return {
        "title": "Libraries of experts at equal compute",
        "subtitle": f"{len(plan.tasks.training)} tasks in training, {len(parts['held_out'])} held out, "
        f"{len(runs)} seeds, on {plan.model.name}",
        "facts": results.facts(plan.model, plan.tasks, seconds),
        "resampled": "seeds and tasks, and examples within their tasks, resampled",
        "claims": [claim.judged(judged, metric) for claim in CLAIMS for metric in JUDGED],
        "methods": [
            _row(name, lines, figures) | _accuracy(name, routings) | zero_shot.get(name, {})
            for name, lines in plan.lines.items()
        ],
        "tasks": [results.task(task, _over_seeds(scores, task.name)) for task in plan.reported.values()],
        "analysis": [{"name": name, **found} for name, found in routings[0].items() if name in ANALYSED],
        "stages": results.stages(seconds),
        "chosen": {str(run.seed): run.chosen for run in runs},
        "development": list(plan.development),
    }


class _Seed:
    """One seed of a study: its libraries, the chosen line of each method, and their scores."""

    def __init__(self, plan: Study, folder: pathlib.Path, seed: int):
        self.plan, self.seed, self.stages = plan, seed, Stages(folder)
        made = arguments.made(Settings, {**plan.settings, "seed": seed})
        cluster = {**plan.cluster, "seed": plan.cluster.get("seed", 42) + seed}
        training = plan.tasks.training
        self.libraries = Libraries(
            plan.model, training, self.stages, dataclasses.asdict(made), cluster, plan.rows, clustering=plan.clustering
        )

    @functools.cached_property
    def reporting(self) -> Experiment:
        return self._experiment(self.plan.reported, self.stages.folder)

    @functools.cached_property
    def developing(self) -> Experiment:
        return self._experiment(self.plan.developed, self.stages.folder)

    def _experiment(self, tasks: Tasks, folder: pathlib.Path) -> Experiment:
        """Methods are made with all training tasks, and adapt to the held-out ones among `tasks`."""
        plan = self.plan
        known = Tasks([*plan.tasks.training.values(), *tasks.held_out.values()])
        folders = {kind: self.libraries.path(kind) for kind in plan.kinds}
        train = {**plan.settings, **plan.adapted, "seed": self.seed}
        return Experiment(plan.model, known, folders, plan.sample, plan.max_new_tokens, train, dict(plan.adapt), folder)

    @functools.cached_property
    def chosen(self) -> dict[str, Line]:
        """The line of each method that has the lowest loss on the development tasks."""
        return {name: own[0] if len(own) == 1 else self._best(name, own) for name, own in self.plan.lines.items()}

    def _best(self, name, lines) -> Line:
        tasks = self.plan.developed
        sample = dataclasses.replace(self.plan.sample, examples=self.plan.tuning, split="validation")
        losses = []
        for number, line in enumerate(lines):
            found = self._scored(f"develop {name} {number}", line, self.developing, tasks, sample, LOSS_ALONE)
            parts = [summary(found, [one for one in part if one in found]) for part in (tasks.training, tasks.held_out)]
            losses.append(sum(part["loss"] for part in parts if part))
        return lines[losses.index(min(losses))]

    def scores(self) -> Run:
        """The scores of the chosen line of each method on the reported tasks."""
        how = self.reporting, self.plan.reported, self.plan.sample, self.plan.max_new_tokens
        return {name: self._scored(f"score {name}", line, *how) for name, line in self.chosen.items()}

    def _scored(self, stage, line, experiment, tasks, sample, new_tokens):
        def score(method):
            covered = method.covered(tasks)
            if "adapt" in line:
                covered = covered.held_out
            return as_json(evaluate(self.plan.model, covered, method.library, method.router, sample, new_tokens))

        return from_json(self._measured(stage, line, experiment, (tasks, sample, new_tokens), score))

    def routing(self) -> dict[str, dict[str, Any]]:
        """{method: the analysis of its router on the reported tasks}, of the routers that look at tokens."""
        plan = self.plan
        routed = {
            name: line
            for name, line in self.chosen.items()
            if line.get("router", {}).get("name", "oracle") not in UNANALYSED
        }

        def analysed(method):
            return analyse(plan.model, method, plan.reported.training, plan.sample).as_json()

        how = plan.reported, plan.sample, plan.max_new_tokens
        return {
            name: self._measured(f"routing {name}", line, self.reporting, how, analysed)
            for name, line in routed.items()
        }

    def _measured(self, stage, line, experiment, how, measure):
        """What `measure` finds of a method: a stage that is tied to all that it is made of."""
        tasks, sample, new_tokens = how
        made_of = methods.made_of(line, experiment) | plain(
            {
                "experiment": experiment.made_of(),
                "scored": {"tasks": list(tasks), "sample": dataclasses.asdict(sample), "new_tokens": new_tokens},
            }
        )

        def make():
            return measure(methods.make(stage, line, experiment, self.stages.path(stage).with_suffix("")))

        return self.stages.current(stage, made_of, make)

    def benchmarks(self) -> Run:
        """The answers to benchmarks of the methods that answer any prompt; right ones are exact matches."""
        found = {}
        for name, line in self.chosen.items():
            if "adapt" not in line and line.get("router", {}).get("name") != "oracle":
                folder = self.stages.folder / "benchmarks" / f"{own_name(name)}-{digest.of_json(line)}"
                scored = benchmarks(self._experiment(self.plan.reported, folder), line, **self.plan.benchmarks)
                found[name] = {one: result.score() for one, result in scored.items()}
        return found

    def transfer(self) -> Estimate:
        """The rank correlation of similarity and gain over pairs of the private experts."""
        found = transfer(
            self.plan.model,
            self.plan.tasks.training,
            self.libraries.library("private"),
            self.stages.folder / "transfer",
            self.libraries.settings,
            self.plan.sample,
            self.plan.pairs,
        )
        return Estimate(**{key: float("nan") if end is None else end for key, end in found["spearman"].items()})


def _alternatives(name, line) -> list[dict[str, Any]]:
    """The lines of a method, normalised."""
    where = f"lines[{arguments.title('method name', name)!r}]"
    lines = [line] if isinstance(line, Mapping) else arguments.items(where, line, "a method, or a list of methods")
    found = [methods.normalised(one, where) for one in lines]
    if not found or any("library" not in one for one in found):
        raise InputError(f"{where}: expected at least one method, each with a library")
    return found


def _figures(scores, plan, tasks) -> Figures | None:
    """The figures of the methods that were scored on all of the tasks; None without tasks."""
    if not tasks:
        return None
    known = [name for name in plan.lines if all(task in run[name] for run in scores for task in tasks)]
    return Figures(scores, known, tasks)


def _row(name, lines, figures: Mapping[str, Figures | None]) -> dict[str, Any]:
    """One line of the comparison: the means of each part, with their intervals."""
    return {"name": name, "note": lines[0].get("note", "")} | {part: _means(own, name) for part, own in figures.items()}


def _accuracy(name, routings) -> dict[str, Any]:
    """The share of prompts that go to their task's expert, the mean over seeds."""
    found = [run[name]["accuracy"] for run in routings if name in run]
    return {"routing_accuracy": float(np.mean(found))} if found and None not in found else {}


def _means(figures: Figures | None, name) -> dict[str, Any]:
    if figures is None or name not in figures.methods:
        return {}
    found = {metric.name: figures.mean(metric.name, name) for metric in metrics.METRICS}
    means = {metric: one.value for metric, one in found.items()}
    return means | {"intervals": {metric: [one.low, one.high] for metric, one in found.items()}}


def _zero_shot(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """{method: the mean of its benchmarks with its interval, and each of them}."""
    metric, names = metrics.EXACT_MATCH.name, list(next(iter(runs[0].values())))
    figures = Figures(runs, list(runs[0]), names, fixed=True)
    found = {}
    for method in figures.methods:
        mean = figures.mean(metric, method)
        each = {name: float(np.mean([run[method][name][metric] for run in runs])) for name in names}
        zero_shot = {"accuracy": mean.value, "intervals": {"accuracy": [mean.low, mean.high]}}
        found[method] = {"zero_shot": zero_shot, "benchmarks": each}
    return found


def _over_seeds(scores: Sequence[Run], task) -> dict[str, dict[str, Score]]:
    """{method: {task: the score of the examples under all seeds}}."""
    known = [name for name in scores[0] if all(task in run[name] for run in scores)]
    return {name: {task: joined([run[name][task] for run in scores])} for name in known}
