"""`modjax demo`: from tasks to compared, routed experts, in stages; a stage that is done is not repeated."""

from absl.flags import DEFINE_string, FlagValues

from modjax import report
from modjax.cli import build, session
from modjax.eval.sample import Sample
from modjax.files import write_json
from modjax.parallel.distributed import from_first
from modjax.studies.demo import demo

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax demo --config=configs/demo.py --workdir=workdir/demo"


def define_flags(values: FlagValues) -> None:
    DEFINE_string("report", "report", "the folder that index.html goes to", values)


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/{private,mbc,shared}/library, a JSON file per stage, results.json, and the HTML report."""
    folder = session.enter(workdir, config)
    found = demo(
        build.model(config),
        build.tasks(config),
        folder,
        config.train.to_dict(),
        config.cluster.to_dict(),
        config.demo.rows.to_dict(),
        Sample.of(config.evaluate),
        config.evaluate.max_new_tokens,
        config.demo.shown,
    )
    from_first(lambda: leave(found | {"config": build.plain(config)}, folder / "results.json", flags.report))


def leave(found, path, target) -> None:
    """Writes the results and their report, and prints the table."""
    write_json(path, found)
    print(report.text_table(found))
    print(f"report: {report.write(found, target)}")
