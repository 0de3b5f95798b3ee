"""One seed of a study: its libraries, the chosen line of each method, and their scores."""

import dataclasses
import functools
import pathlib
from typing import Any

from modjax import arguments
from modjax.data.tasks import Tasks
from modjax.eval.hierarchy import Run
from modjax.eval.intervals import Estimate
from modjax.eval.score import summary
from modjax.studies.benchmarks import benchmarks, folder_of
from modjax.studies.design import Line, Study
from modjax.studies.experiment import Experiment
from modjax.studies.libraries import Libraries
from modjax.studies.stages import Stages
from modjax.studies.transfer import transfer
from modjax.studies.trial import Trial
from modjax.train.settings import Settings

LOSS_ALONE = 1  # new tokens where answers do not count
UNANALYSED = ("uniform", "oracle")  # routers that do not look at the prompt


class SeedRun:
    """A study with one seed; each part is a stage in the folder, and is not repeated."""

    def __init__(self, study: Study, folder: pathlib.Path, seed: int):
        self.study, self.seed, self.stages = study, seed, Stages(folder)
        made = arguments.made(Settings, {**study.settings, "seed": seed})
        cluster = {**study.cluster, "seed": study.cluster.get("seed", 42) + seed}
        training = study.tasks.training
        self.libraries = Libraries(
            study.model,
            training,
            self.stages,
            dataclasses.asdict(made),
            cluster,
            study.rows,
            clustering=study.clustering,
        )

    @functools.cached_property
    def reporting(self) -> Experiment:
        return self._experiment(self.study.reported)

    @functools.cached_property
    def developing(self) -> Experiment:
        return self._experiment(self.study.developed)

    def _experiment(self, tasks: Tasks) -> Experiment:
        """Methods are made with all training tasks, and adapt to the held-out ones among `tasks`."""
        study = self.study
        known = Tasks([*study.tasks.training.values(), *tasks.held_out.values()])
        folders = {kind: self.libraries.path(kind) for kind in study.kinds}
        train = {**study.settings, **study.adapted, "seed": self.seed}
        how = study.sample, study.max_new_tokens, train, dict(study.adapt), self.stages.folder
        return Experiment(study.model, known, folders, *how)

    @functools.cached_property
    def chosen(self) -> dict[str, Line]:
        """The line of each method that has the lowest loss on the development tasks."""
        return {name: own[0] if len(own) == 1 else self._best(name, own) for name, own in self.study.lines.items()}

    def _best(self, name, lines) -> Line:
        tasks = self.study.developed
        sample = dataclasses.replace(self.study.sample, examples=self.study.tuning, split="validation")
        losses = []
        for number, line in enumerate(lines):
            stage = f"develop {name} {number}"
            found = Trial(self.stages, stage, line, self.developing, tasks, sample, LOSS_ALONE).scores()
            parts = [summary(found, [one for one in part if one in found]) for part in (tasks.training, tasks.held_out)]
            losses.append(sum(part["loss"] for part in parts if part))
        return lines[losses.index(min(losses))]

    @functools.cached_property
    def trials(self) -> dict[str, Trial]:
        """The chosen line of each method, on the reported tasks."""
        how = self.reporting, self.study.reported, self.study.sample, self.study.max_new_tokens
        return {name: Trial(self.stages, f"score {name}", line, *how) for name, line in self.chosen.items()}

    def scores(self) -> Run:
        return {name: trial.scores() for name, trial in self.trials.items()}

    def routing(self) -> dict[str, dict[str, Any]]:
        """{method: the analysis of its router}, of the routers that look at the prompt."""
        return {
            name: trial.routing(f"routing {name}")
            for name, trial in self.trials.items()
            if trial.line.get("router", {}).get("name", "oracle") not in UNANALYSED
        }

    def benchmarks(self) -> Run:
        """The answers to benchmarks of the methods that answer any prompt; right ones are exact matches."""
        found = {}
        for name, line in self.chosen.items():
            if "adapt" not in line and line.get("router", {}).get("name") != "oracle":
                experiment = self.reporting.at(folder_of(self.stages.folder, name, line))
                scored = benchmarks(experiment, line, **self.study.benchmarks)
                found[name] = {one: result.score() for one, result in scored.items()}
        return found

    def transfer(self) -> Estimate:
        """The rank correlation of similarity and gain over pairs of the private experts."""
        found = transfer(
            self.study.model,
            self.study.tasks.training,
            self.libraries.library("private"),
            self.stages.folder / "transfer",
            self.libraries.settings,
            self.study.sample,
            self.study.pairs,
        )
        return Estimate(**{key: float("nan") if end is None else end for key, end in found["spearman"].items()})
