"""`modjax evaluate`: the base model, or a library under a router, scored task by task."""

import time

from modjax.cli import build, session
from modjax.eval.evaluation import evaluate
from modjax.eval.method import Method
from modjax.eval.metrics import METRICS
from modjax.eval.sample import Sample
from modjax.eval.score import as_json, summary
from modjax.files import write_json
from modjax.report.metric import written

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax evaluate --config=configs/evaluate.py:quick,library=workdir/private/library --workdir=workdir/scores"


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/scores.json and prints the means in distribution and on held-out tasks."""
    folder = session.enter(workdir, config)
    tasks = build.tasks(config)
    model = build.model(config)
    method = Method("base")
    if config.library:
        library = build.library(config)
        method = Method(config.router.name, library, build.router(config, library, model))
    sample, start = Sample.of(config.evaluate), time.perf_counter()
    scores = evaluate(model, tasks, method.library, method.router, sample, config.evaluate.max_new_tokens)
    found = {"method": method.name, "seconds": time.perf_counter() - start, **as_json(scores)}
    write_json(folder / "scores.json", found)
    for part, names in (("in distribution", tasks.training), ("held out", tasks.held_out)):
        if means := summary(scores, list(names)):
            figures = ", ".join(written(metric, means[metric.name]) for metric in METRICS)
            print(f"{method.name}, {part}: {figures}, {means['examples']} examples")
