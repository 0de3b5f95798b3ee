"""The demo with several seeds; its number of steps and the order of its methods, chosen by validation.

    python benchmarks/demo_seeds.py --workdir=workdir/demo_seeds --out=benchmarks/results/NAME.json

With the first seed the demo's libraries are trained for each of some numbers of steps, and scored on the validation
split of all tasks. The number is the smallest whose loss, under the method that the demo leads with, is not above the
lowest by more than the 95 % interval of the difference. With so many steps an expert is trained for each training task
of open48, to see whether experts gain over the base model in each family; the demo has the families with a held-out
task. With all seeds the methods are then ordered by their validation loss in distribution, and scored on the test
split, with intervals over seeds, tasks and examples. A run that was stopped goes on.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import config_files
import measuring
from ml_collections import ConfigDict
from new_tasks import gains

from modjax import Model, data, metrics
from modjax.cli import build
from modjax.data.tasks import Tasks
from modjax.eval import Sample
from modjax.eval.hierarchy import Figures, Run
from modjax.studies.demo import METHODS, trials
from modjax.studies.libraries import Libraries
from modjax.studies.seed_run import LOSS_ALONE
from modjax.studies.stages import Stages

PACKAGES = ("flax", "numpy")
STEPS, SEEDS = (8, 16, 32), (0, 1, 2)
LED = "confident, else general"  # the method that the demo leads with
BASE, MEAN, OWN = "base", "uniform (private)", "oracle (private)"
EACH = tuple(metric.name for metric in metrics.METRICS)


@dataclasses.dataclass(frozen=True)
class Demos:
    """The demo's libraries and methods for any seed and number of steps, each in a folder of its own."""

    model: Model
    tasks: Tasks
    config: ConfigDict
    workdir: pathlib.Path

    def scores(
        self, steps: int, seed: int, split: str, new_tokens: int = LOSS_ALONE, names: Sequence[str] = tuple(METHODS)
    ) -> Run:
        """{method: {task: its score}} of the demo's methods of these names."""
        config, stages = self.config, Stages(self.workdir / f"steps-{steps}" / f"seed-{seed}")
        settings = config.train.to_dict() | {"steps": steps, "seed": seed}
        cluster = config.cluster.to_dict() | {"seed": config.cluster.seed + seed}
        libraries = Libraries(self.model, self.tasks, stages, settings, cluster, config.demo.rows.to_dict())
        sample = dataclasses.replace(Sample.of(config.evaluate), split=split)
        return {name: one.scores() for name, one in trials(libraries, sample, new_tokens, names, split).items()}


def fewest_steps(runs: Mapping[int, Run], tasks: Sequence[str]) -> tuple[int, dict]:
    """The smallest number of steps that is as good as the best, and {steps: its loss and how far above the lowest}."""
    found = Figures([{str(steps): run[LED] for steps, run in runs.items()}], list(map(str, runs)), tasks)
    losses = {steps: found.mean("loss", str(steps)) for steps in runs}
    best = min(losses, key=lambda steps: losses[steps].value)
    above = {steps: found.difference("loss", str(steps), str(best)) for steps in runs}
    taken = min(steps for steps, difference in above.items() if difference.low <= 0)
    return taken, {steps: {"loss": losses[steps].as_json(), "above_lowest": above[steps].as_json()} for steps in runs}


def family_gains(run: Run, tasks: Tasks) -> dict[str, dict]:
    """{family: how much a task's own expert gains over the base, with its interval}, the largest gain first."""
    by_family: dict[str, list[str]] = {}
    for name, task in tasks.training.items():
        by_family.setdefault(task.family, []).append(name)
    found = {
        family: Figures([run], [BASE, OWN], own).difference("loss", BASE, OWN) for family, own in by_family.items()
    }
    return {family: found[family].as_json() for family in sorted(found, key=lambda one: -found[one].value)}


def over_seeds(runs: Sequence[Run], tasks: Tasks, names: Sequence[str]) -> dict:
    """For each part of the tasks the means of each method by the metrics of these names, and gains in loss."""
    seen = {task.family for task in tasks.training.values()}
    parts = {
        "in_distribution": list(tasks.training),
        "held_out": list(tasks.held_out),
        "unseen_families": [name for name, task in tasks.held_out.items() if task.family not in seen],
    }
    return {part: _of_part(runs, own, names) for part, own in parts.items() if own}


def _of_part(runs, tasks, names):
    known = [name for name in METHODS if set(tasks) <= set(runs[0][name])]
    figures = Figures(runs, known, tasks)
    means = {name: {metric: figures.mean(metric, name).as_json() for metric in names} for name in known}
    found = {"means": means, "gain": gains(figures)}
    if OWN in known:
        found["share_of_gap"] = {name: figures.share("loss", name, MEAN, OWN).as_json() for name in known}
    return found


def chosen(demos: Demos, whole: Tasks, steps: Sequence[int], seeds: Sequence[int]) -> dict:
    """What validation chooses, the gains in each family of all tasks, and the figures of both splits."""
    tried = {one: demos.scores(one, seeds[0], "validation") for one in steps}
    taken, by_steps = fewest_steps(tried, list(demos.tasks))
    every = dataclasses.replace(demos, tasks=whole, workdir=demos.workdir / "families")
    families = family_gains(every.scores(taken, seeds[0], "validation", names=(BASE, OWN)), whole)
    validation = over_seeds([demos.scores(taken, seed, "validation") for seed in seeds], demos.tasks, ("loss",))
    new_tokens = demos.config.evaluate.max_new_tokens
    test = over_seeds([demos.scores(taken, seed, "test", new_tokens) for seed in seeds], demos.tasks, EACH)
    losses = {name: found["loss"]["value"] for name, found in validation["in_distribution"]["means"].items()}
    return {
        "by_steps": by_steps,
        "steps": taken,
        "families": families,
        "seeds": list(seeds),
        "order": sorted(losses, key=losses.get, reverse=True),
        "validation": validation,
        "test": test,
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--workdir", type=pathlib.Path, default="workdir/demo_seeds", help="folder of the libraries")
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    config = config_files.module("demo").get_config()
    steps, seeds = STEPS, SEEDS
    if args.small:
        config.only, config.evaluate.examples, config.cluster.clusters = ("words_p*", "editing_capitals"), 2, 2
        steps, seeds = (1, 2), (0, 1)
    demos = Demos(build.model(config), build.tasks(config), config, args.workdir)
    whole = demos.tasks if args.small else data.load(build.source(config))
    measuring.report(chosen(demos, whole, steps, seeds), PACKAGES, args.out)


if __name__ == "__main__":
    main()
