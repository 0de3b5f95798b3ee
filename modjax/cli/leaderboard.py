"""`modjax leaderboard`: many methods scored on the same tasks, and the page that compares them."""

import functools

from absl.flags import DEFINE_string, FlagValues

from modjax.cli import build, session
from modjax.cli.demo import leave
from modjax.eval.sample import Sample
from modjax.parallel.distributed import from_first
from modjax.studies.experiment import DEFAULT, Experiment
from modjax.studies.leaderboard import leaderboard
from modjax.studies.libraries import Libraries
from modjax.studies.stages import Stages

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = (
    "modjax leaderboard --config=configs/leaderboard.py:quick,library=workdir/private/library --workdir=workdir/board"
)


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/leaderboard.json, a JSON file per method, the libraries it trains, and the HTML report."""
    build.library(config)  # fails at once if there is none
    fixed = config.copy_and_resolve_references()
    with fixed.unlocked():
        fixed.leaderboard = {"rows": config.leaderboard.rows}  # the rest may change between runs
    folder = session.enter(workdir, fixed)
    model, tasks = build.model(config), build.tasks(config)
    folders = _trained(config, model, tasks, Stages(folder))
    models = config.leaderboard.models.to_dict() | ({"full": folders.pop("full")} if "full" in folders else {})
    experiment = Experiment(
        model,
        tasks,
        {DEFAULT: config.library} | config.leaderboard.libraries.to_dict() | folders,
        Sample.of(config.evaluate),
        config.evaluate.max_new_tokens,
        config.train.to_dict(),
        config.adapt.to_dict(),
        folder,
    )
    options, lines = config.leaderboard, build.plain(config.leaderboard.methods)
    load_model = functools.partial(build.model, config)
    found = leaderboard(experiment, lines, models, options.analyse, options.shown, load_model)
    found["config"] = build.plain(config)
    from_first(lambda: leave(found, folder / "leaderboard.json", flags.report))


def _trained(config, model, tasks, stages) -> dict[str, str]:
    """{kind: folder} of the libraries, and the model of "full", that the job trains."""
    settings = config.train.to_dict() | {"patience": 0, "evaluate_every": 0}
    libraries = Libraries(
        model,
        tasks,
        stages,
        settings,
        config.cluster.to_dict(),
        config.leaderboard.rows.to_dict(),
        config.poly.to_dict(),
        private_folder=config.library,
    )
    return {kind: str(libraries.path(kind)) for kind in config.leaderboard.train}
