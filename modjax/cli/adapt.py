"""`modjax adapt`: an expert for each new task from a few of its examples, scored beside the base model."""

import functools

from modjax import adapt
from modjax.cli import build, session
from modjax.data.tasks import Tasks
from modjax.eval.evaluation import evaluate
from modjax.eval.metrics import METRICS
from modjax.eval.sample import Sample
from modjax.eval.score import Score, as_json, from_json, summary
from modjax.routing import oracle
from modjax.studies import adaptation
from modjax.studies.adaptation import Adaptation
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax adapt --config=configs/adapt.py:quick,library=workdir/private/library --workdir=workdir/adapted"


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, one expert a new task, and the tasks' scores in before.json and after.json."""
    options, settings = config.adapt.to_dict(), config.train.to_dict()
    adaptation.check(options)
    stages = Stages(session.enter(workdir, config))
    tasks = adapt.few(new_tasks(config), options["examples"], options["validation"])
    model, given = build.model(config), functools.partial(build.library, config)
    library = Adaptation(model, tasks, options, settings, stages, stages.folder, given).adapted()

    read = {"sample": Sample.of(config.evaluate), "max_new_tokens": config.evaluate.max_new_tokens}

    def scored(name, *routed):
        return from_json(stages.json(name, lambda: as_json(evaluate(model, tasks, *routed, **read))))

    before = scored("before")
    print(table(before, scored("after", library, oracle(library))))


def new_tasks(config) -> Tasks:
    """The held-out tasks of those that the config names; all of them where none is held out."""
    tasks = build.tasks(config)
    return tasks.held_out or tasks


def table(before: dict[str, Score], after: dict[str, Score]) -> str:
    """A line per task and one of their means: each metric before and after."""
    metrics = [metric.name for metric in METRICS]
    lines = [f"{'':24}" + "".join(f"{metric:>19}" for metric in metrics)]
    for name, own in [*((task, [task]) for task in after), ("mean", list(after))]:
        old, new = summary(before, own), summary(after, own)
        lines.append(f"{name:24}" + "".join(f"{old[metric]:9.3f} -> {new[metric]:6.3f}" for metric in metrics))
    return "\n".join(lines)
