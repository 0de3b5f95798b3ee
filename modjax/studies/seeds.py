"""One study repeated with several seeds: each in its own folder, and the mean and range of every method's scores."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from modjax import arguments, metrics
from modjax.errors import InputError

PARTS = ("in_distribution", "held_out")


def seeds(
    study: Callable[[int, pathlib.Path], dict[str, Any]], folder: str | pathlib.Path, numbers: Sequence[int] = (0, 1, 2)
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Runs a study once per seed and summarises its methods.

    Args:
      study: a function of a seed and a folder that returns results for `modjax.report`, such as a call of `demo` or
        `leaderboard` with that seed in its settings. It resumes by itself, so this does too.
      folder: seed-0/, seed-1/, ... are the folders of the runs.

    Returns {method: {"in_distribution" or "held_out": {metric: {"mean", "low", "high"}}}}: over seeds, of the methods
    that every run has scored. Raises InputError without seeds.
    """
    numbers = [arguments.seed("seed", number) for number in arguments.items("seeds", numbers, "a list of seeds")]
    if not numbers:
        raise InputError("no seeds; expected at least one")
    folder = arguments.path("folder", folder)
    if not callable(study):
        raise arguments.refused("study", study, "a function of a seed and a folder")
    runs = [_scores(study(number, folder / f"seed-{number}")) for number in numbers]
    common = [name for name in runs[0] if all(name in run for run in runs)]
    return {name: _over_seeds([run[name] for run in runs]) for name in common}


def _scores(results):
    """{method: {part: {metric: number}}} of the methods that did not fail."""
    return {
        one["name"]: {part: one.get(part) or {} for part in PARTS} for one in results["methods"] if "error" not in one
    }


def _over_seeds(runs):
    found = {}
    for part in PARTS:
        measured = [metric.name for metric in metrics.METRICS if all(metric.name in run[part] for run in runs)]
        found[part] = {name: _range([run[part][name] for run in runs]) for name in measured}
    return found


def _range(values):
    return {"mean": float(np.mean(values)), "low": float(np.min(values)), "high": float(np.max(values))}
