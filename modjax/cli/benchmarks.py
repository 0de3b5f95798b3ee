"""The benchmarks of `modjax evaluate`: ten zero-shot tasks of a method, and their mean."""

import pathlib
from collections.abc import Mapping

from ml_collections import ConfigDict

from modjax.cli import build, session
from modjax.eval.benchmarks.result import Result, mean
from modjax.eval.execution import Limits
from modjax.studies.benchmarks import benchmarks


def run(config: ConfigDict, workdir: str) -> None:
    """Writes WORKDIR/benchmarks.json and a folder per benchmark, and prints a table."""
    own, chosen = config.benchmarks, config.evaluate
    fixed = config.copy_and_resolve_references()
    with fixed.unlocked():
        del fixed.benchmarks  # where records are, and which are scored, may change between runs
    folder = session.enter(workdir, fixed)
    settings = {"examples": chosen.examples, "seed": chosen.seed, "limits": Limits(**own.limits)}
    settings |= {name: own[name] for name in ("chat", "execute", "batch")}
    experiment = build.experiment(config, workdir)
    found = benchmarks(experiment, build.method(config), own.data or None, own.names, **settings)
    print(table(found))
    print(f"mean of {len(found)}: {100 * mean(found):.1f} %, in {pathlib.Path(folder, 'benchmarks.json')}")


def table(results: Mapping[str, Result]) -> str:
    """A line per benchmark: its headline with the standard error, in percent, and its other metrics."""
    lines = [f"{'benchmark':14} {'questions':>9} {'score':>6} {'error':>6}  metric       others"]
    for name, one in results.items():
        others = [f"{metric} {100 * one[metric]:.1f}" for metric in one.values if metric != one.metric]
        score, error = f"{100 * one.headline:6.1f}", f"{100 * one.error():6.1f}"
        lines.append(f"{name:14} {one.examples:9} {score} {error}  {one.metric:11}  {', '.join(others)}".rstrip())
    return "\n".join(lines)
