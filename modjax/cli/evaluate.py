"""`modjax evaluate`: the base model, or a library with a router, scored task by task."""

import time

from modjax.cli import benchmarks, build, harness, session
from modjax.eval.evaluation import evaluate
from modjax.eval.score import as_json, summary
from modjax.files import write_json
from modjax.metrics import METRICS
from modjax.parallel.distributed import from_first
from modjax.report.metric import written
from modjax.studies import methods

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax evaluate --config=configs/evaluate.py:quick,library=workdir/private/library --workdir=workdir/scores"

OTHERS = {"benchmarks": benchmarks, "harness": harness}  # by the part that their configs have


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/scores.json and prints the means in distribution and on held-out tasks.

    With configs/benchmarks.py the ten zero-shot benchmarks instead: WORKDIR/benchmarks.json, and a table of them; with
    configs/harness.py tasks of lm-evaluation-harness: WORKDIR/results.json.
    """
    for name, other in OTHERS.items():
        if name in config:
            other.run(config, workdir)
            return
    line, experiment = build.method(config), build.experiment(config, workdir)
    methods.check(line, experiment, "config.method")
    folder = session.enter(workdir, config)
    session.bind(folder, methods.made_of(line, experiment) | experiment.made_of(), "scores.json")
    method = methods.make(line.get("router", {"name": "base"})["name"], line, experiment)
    tasks, start = experiment.tasks, time.perf_counter()
    scores = evaluate(
        experiment.model, tasks, method.library, method.router, experiment.sample, experiment.max_new_tokens
    )
    found = {"method": method.name, "seconds": time.perf_counter() - start, **as_json(scores)}
    from_first(lambda: write_json(folder / "scores.json", found))
    for part, names in (("in distribution", tasks.training), ("held out", tasks.held_out)):
        if means := summary(scores, list(names)):
            figures = ", ".join(written(metric, means[metric.name]) for metric in METRICS)
            print(f"{method.name}, {part}: {figures}, {means['examples']} examples")
