"""`modjax adapt`: an expert for each held-out task from a few of its examples, compared with the base model."""

import dataclasses

from modjax import adapt
from modjax.cli import build, session
from modjax.data.tasks import Tasks
from modjax.eval.evaluation import evaluate
from modjax.eval.score import Score, as_json, from_json, summary
from modjax.metrics import METRICS
from modjax.routing.oracle import oracle
from modjax.studies import methods
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax adapt --config=configs/adapt.py:quick,library=workdir/private/library --workdir=workdir/adapted"


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, one expert per held-out task, and the scores in before.json and after.json.

    If the collection holds no task out, all of its tasks are adapted to.
    """
    method = {"adapt": {}} | ({} if config.library else {"library": ""})
    experiment = build.experiment(config, workdir)
    methods.check(method, experiment, "config")
    folder = session.enter(workdir, config)
    if not experiment.tasks.held_out:
        experiment.tasks = Tasks(dataclasses.replace(task, held_out=True) for task in experiment.tasks.values())
    session.bind(folder, methods.made_of(method, experiment) | experiment.made_of(), "library", "before.json")
    library = methods.library_of(method, experiment)
    stages, new = Stages(folder), adapt.few(experiment.tasks.held_out)
    stages.claim({"library": library.fingerprint}, "trained", ["after.json"])

    def scored(name, *routed):
        read = {"sample": experiment.sample, "max_new_tokens": experiment.max_new_tokens}
        return from_json(stages.json(name, lambda: as_json(evaluate(experiment.model, new, *routed, **read))))

    before = scored("before")
    print(table(before, scored("after", library, oracle(library))))


def table(before: dict[str, Score], after: dict[str, Score]) -> str:
    """A line per task and one of their means: each metric before and after."""
    metrics = [metric.name for metric in METRICS]
    lines = [f"{'':24}" + "".join(f"{metric:>19}" for metric in metrics)]
    for name, own in [*((task, [task]) for task in after), ("mean", list(after))]:
        old, new = summary(before, own), summary(after, own)
        lines.append(f"{name:24}" + "".join(f"{old[metric]:9.3f} -> {new[metric]:6.3f}" for metric in metrics))
    return "\n".join(lines)
