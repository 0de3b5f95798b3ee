"""`modjax study`: libraries at equal compute, methods with tuned settings, several seeds, and the paper's claims."""

from typing import Any

from absl.flags import DEFINE_string, FlagValues

from modjax import data
from modjax.cli import build, session
from modjax.cli.demo import leave
from modjax.eval.sample import Sample
from modjax.parallel.distributed import from_first
from modjax.report import claims
from modjax.studies.design import Study
from modjax.studies.study import study

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax study --config=configs/study.py:demo --workdir=workdir/study"


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/seed-N with its libraries, choices and scores, WORKDIR/study.json, and the HTML report."""
    fixed = config.copy_and_resolve_references()
    with fixed.unlocked():
        for name in ("seeds", "methods", "benchmarks"):  # these may change between runs
            del fixed.study[name]
    folder = session.enter(workdir, fixed)
    options = config.study
    plan = Study(
        build.model(config),
        build.tasks(config),
        build.plain(options.methods),
        config.train.to_dict(),
        config.cluster.to_dict(),
        held_out=_named(config, options.held_out),
        development=_named(config, options.development),
        seeds=options.seeds,
        rows=options.rows.to_dict(),
        clustering=options.clustering,
        sample=Sample.of(config.evaluate),
        max_new_tokens=config.evaluate.max_new_tokens,
        tuning=options.tuning,
        adapt=config.adapt.to_dict(),
        adapted=options.adapted.to_dict(),
        pairs=options.pairs,
        benchmarks=_asked(options.benchmarks),
    )
    found = study(folder, plan)
    found["config"] = build.plain(config)
    from_first(lambda: print(f"{claims.text(found)}\n"))
    from_first(lambda: leave(found, folder / "study.json", flags.report))


def _asked(options) -> dict[str, Any]:
    """The arguments of `modjax.studies.benchmarks`; {} for no names."""
    return options.to_dict() | {"data": options.data or None} if options.names else {}


def _named(config, names) -> list[str]:
    """The tasks of the collection that match the names, as those of `config.only` do."""
    return list(data.load(build.source(config), only=tuple(names))) if names else []
