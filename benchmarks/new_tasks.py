"""The methods of a study on many more tasks that no expert was trained on, with intervals over seeds, tasks, examples.

    python benchmarks/new_tasks.py --study=workdir/study --only=extra192 --out=benchmarks/results/NAME.json

Methods differ from task to task by more than from example to example, so that twelve held-out tasks leave much open.
Here each method of `modjax study`, as chosen there, is scored by its loss on a few examples of every task of the
study's collection that the study has not used for anything. A run that was stopped goes on.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection

import measuring
from ml_collections import ConfigDict

from modjax import data
from modjax.cli import build
from modjax.data.tasks import Tasks
from modjax.eval import Sample
from modjax.eval.hierarchy import Figures
from modjax.files import read_json
from modjax.studies import Experiment
from modjax.studies.seed_run import LOSS_ALONE
from modjax.studies.stages import Stages
from modjax.studies.trial import Trial

PACKAGES = ("flax", "numpy")
METHODS = (
    "shared", "mu (private)", "Arrow (private)", "mu (MBC)", "confident (private)", "confident (MBC)",
    "confident, else shared", "confident, else MBC's mean", "confident, else general",
)  # fmt: skip


def new_tasks(tasks: Tasks, used: Collection[str]) -> Tasks:
    """Those of the tasks that have not been used, as held out."""
    return Tasks(dataclasses.replace(task, held_out=True) for name, task in tasks.items() if name not in used)


def scores(experiment: Experiment, folder: pathlib.Path, lines: dict, new: Tasks, sample: Sample) -> dict:
    """{method: {task: its score}} of one seed; the folder keeps what is done."""
    stages = Stages(folder)
    return {
        name: Trial(stages, name, line, experiment, new, sample, LOSS_ALONE).scores() for name, line in lines.items()
    }


def table(runs: list[dict], new: Tasks) -> dict:
    """The loss of each method, and its difference from each other one, with 95 % intervals."""
    figures = Figures(runs, list(runs[0]), list(new))
    losses = {name: figures.mean("loss", name).as_json() for name in figures.methods}
    return {"loss": losses, "gain": gains(figures)}


def gains(figures: Figures) -> dict[str, dict]:
    """{"A over B": how much lower A's loss is, with its interval} of all pairs of methods."""
    return {
        f"{name} over {other}": figures.difference("loss", other, name).as_json()
        for other, name in itertools.combinations(figures.methods, 2)
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument("--study", type=pathlib.Path, required=True, help="the workdir of a study that has ended")
    parser.add_argument("--only", default="*", help="patterns of names, families or groups of tasks")
    parser.add_argument("--exclude", default="", help="patterns of tasks that something else was chosen by")
    parser.add_argument("--examples", type=int, default=1, help="test examples of each task")
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    done = read_json(args.study / "study.json")
    config = ConfigDict(done["config"])
    model, used, source = build.model(config), build.tasks(config), build.source(config)
    left_out = data.load(source, only=args.exclude.split(",")) if args.exclude else {}
    new = new_tasks(data.load(source, only=args.only.split(",")), {**used, **left_out})
    new = new.select(list(new)[:4]) if args.small else new
    sample = dataclasses.replace(Sample.of(config.evaluate), examples=args.examples)
    runs = []
    for seed, chosen in done["chosen"].items():
        folder, lines = args.study / f"seed-{seed}", {name: chosen[name] for name in METHODS if name in chosen}
        kinds = {line["library"] for line in lines.values()} - {""}
        libraries = {kind: folder / kind / "library" for kind in sorted(kinds)}
        runs.append(scores(Experiment(model, used.training, libraries, sample), folder / "new", lines, new, sample))
    measuring.report({"tasks": len(new), "examples": args.examples, **table(runs, new)}, PACKAGES, args.out)


if __name__ == "__main__":
    main()
