"""`modjax route`: a router built once and saved, and an analysis of how it divides the work."""

from absl.flags import DEFINE_string, FlagValues

from modjax import report
from modjax.cli import build, session
from modjax.errors import InputError
from modjax.eval.method import Method
from modjax.parallel.distributed import from_first
from modjax.report import analysis
from modjax.studies import catalogue, methods, results
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax route --config=configs/route.py:quick,library=workdir/private/library --workdir=workdir/arrow"


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/router.safetensors, for `config.method.router.name`, routing.json, and the HTML report."""
    line = build.method(config)
    if "router" not in line:
        raise InputError("config.library is empty or config.method has no router; expected both")
    experiment = build.experiment(config, workdir)
    methods.check(line, experiment, "config.method")
    stages = Stages(session.enter(workdir, config))
    made_of = methods.made_of(line, experiment) | experiment.made_of()
    session.bind(stages.folder, made_of, "router.safetensors", "routing.json")
    name, library = line["router"]["name"], methods.library_of(line, experiment)
    router = _router(line, library, experiment, stages.folder / "router.safetensors")
    method, tasks, count = Method(name, library, router), experiment.tasks, config.route.shown
    shown = list(tasks)[:: max(1, len(tasks) // max(1, count))][:count]
    found = stages.json("routing", lambda: results.routing(experiment.model, method, tasks, shown, experiment.sample))
    print(f"{stages.folder / 'router.safetensors'}: a {type(router).__name__} router of {len(library)} experts")
    print(analysis.text(found["analysis"]))
    page = {
        "title": f"How {name} divides the work",
        "subtitle": f"{len(library)} experts of rank {library.rank} on {experiment.model.name}",
        "facts": results.facts(experiment.model, tasks, stages.seconds),
        "analysis": [{"name": name, **found["analysis"]}],
        "routing": found["views"],
        "config": build.plain(config),
    }
    from_first(lambda: print(f"report: {report.write(page, flags.report)}"))


def _router(line, library, experiment, path):
    """The saved router, or a new one that is saved."""
    if from_first(path.exists):
        return catalogue.load(path, line["router"]["name"])
    router = methods.router_of(line, library, experiment)
    from_first(lambda: router.save(path))
    return router
