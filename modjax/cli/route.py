"""`modjax route`: a router made once and kept, and how it divides the work."""

from absl.flags import DEFINE_string, FlagValues

from modjax import report
from modjax.cli import build, session
from modjax.eval.method import Method
from modjax.eval.sample import Sample
from modjax.parallel.distributed import is_writer
from modjax.report import analysis
from modjax.studies import catalogue, results
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax route --config=configs/route.py:quick,library=workdir/private/library --workdir=workdir/arrow"


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/router.safetensors, which `config.router.name` takes, division.json, and the HTML report."""
    stages = Stages(session.enter(workdir, config))
    model, library, tasks = build.model(config), build.library(config), build.tasks(config)
    path, count = stages.folder / "router.safetensors", config.route.shown
    if path.exists():
        router = catalogue.load_router_of(path, config.router.name)
    else:
        router = build.router(config, library, model, workdir=stages.folder / "training")
        if is_writer():
            router.save(path)
    method = Method(config.router.name, library, router)
    shown = list(tasks)[:: max(1, len(tasks) // max(1, count))][:count]
    sample = Sample.of(config.evaluate)
    found = stages.json("division", lambda: results.division(model, method, tasks, shown, sample))
    print(f"{path}: a {type(router).__name__} router of {len(library)} experts")
    print(analysis.text(found["analysis"]))
    page = {
        "title": f"How {method.name} divides the work",
        "subtitle": f"{len(library)} experts of rank {library.rank} on {model.name}",
        "facts": results.facts(config, tasks, stages.seconds),
        "analysis": [{"name": method.name, **found["analysis"]}],
        "routing": found["views"],
        "config": results.resolved(config),
    }
    print(f"report: {report.write(page, flags.report)}")
