"""The study of arXiv 2405.11157: libraries at equal compute, methods with tuned settings, several seeds, its claims.

For each seed: private, shared, MBC, random and embedding libraries are trained on equally many rows; each method's
settings are chosen on the validation split of the development tasks, some trained on and some not; all methods are then
scored on the test split of the other tasks, which nothing was chosen by.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modjax import arguments, metrics
from modjax.eval.hierarchy import Figures, Run
from modjax.eval.score import Score, joined
from modjax.files import os_errors
from modjax.parallel.distributed import from_first
from modjax.studies import results
from modjax.studies.claims import CLAIMS, Results
from modjax.studies.design import Study
from modjax.studies.seed_run import SeedRun

JUDGED = ("loss", "rouge_l")  # the metrics that claims are judged by
ANALYSED = ("Arrow (private)", "Arrow (MBC)")  # whose use of experts the report draws, of the first seed


def study(folder: str | pathlib.Path, plan: Study) -> dict[str, Any]:
    """Runs a study, stage by stage; the folder keeps what is done, which is not repeated.

    Args:
      folder: for seed-0/, seed-1/, ..., each with libraries, choices and scores.

    Returns results for `modjax.report`, with intervals over seeds, tasks and examples; among them "claims", see
    `modjax.studies.claims`; "chosen", {seed: {method: its line}}; and "development", the tasks of these choices.
    """
    folder, plan = arguments.path("folder", folder), arguments.instance("plan", plan, Study)
    with os_errors(folder, "written"):
        from_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    runs = [SeedRun(plan, folder / f"seed-{seed}", seed) for seed in plan.seeds]
    scores = [run.scores() for run in runs]
    routings = [run.routing() for run in runs]
    parts = {"in_distribution": plan.reported.training, "held_out": plan.reported.held_out}
    figures = {part: _figures(scores, plan, list(tasks)) for part, tasks in parts.items()}
    zero_shot = _zero_shot([run.benchmarks() for run in runs]) if plan.benchmarks else {}
    judged = Results(**figures, transfer=runs[0].transfer() if plan.pairs else None)
    seconds = {f"seed {run.seed}: {name}": time for run in runs for name, time in run.stages.seconds.items()}
    return {
        "title": "Libraries of experts at equal compute",
        "subtitle": f"{len(plan.tasks.training)} tasks in training, {len(parts['held_out'])} held out, "
        f"{len(runs)} seed{'s' * (len(runs) > 1)}, on {plan.model.name}",
        "facts": results.facts(plan.model, plan.tasks, seconds),
        "resampled": "seeds and tasks, and examples within their tasks, resampled",
        "claims": [claim.judged(judged, metric) for claim in CLAIMS for metric in JUDGED],
        "methods": [
            _row(name, lines, figures) | _accuracy(name, routings) | zero_shot.get(name, {})
            for name, lines in plan.lines.items()
        ],
        "tasks": [results.task(task, _over_seeds(scores, task.name)) for task in plan.reported.values()],
        "analysis": [{"name": name, **found} for name, found in routings[0].items() if name in ANALYSED],
        "stages": results.stages(seconds),
        "chosen": {str(run.seed): run.chosen for run in runs},
        "development": list(plan.development),
    }


def _figures(scores, plan, tasks) -> Figures | None:
    """The figures of the methods that were scored on all of the tasks; None without tasks or such methods."""
    known = [name for name in plan.lines if all(task in run[name] for run in scores for task in tasks)]
    return Figures(scores, known, tasks) if tasks and known else None


def _row(name, lines, figures: Mapping[str, Figures | None]) -> dict[str, Any]:
    """One line of the comparison: the means of each part, with their intervals."""
    return {"name": name, "note": lines[0].get("note", "")} | {part: _means(own, name) for part, own in figures.items()}


def _accuracy(name, routings) -> dict[str, Any]:
    """The share of prompts that go to their task's expert, the mean over seeds."""
    found = [run[name]["accuracy"] for run in routings if name in run]
    return {"routing_accuracy": float(np.mean(found))} if found and None not in found else {}


def _means(figures: Figures | None, name) -> dict[str, Any]:
    if figures is None or name not in figures.methods:
        return {}
    found = {metric.name: figures.mean(metric.name, name) for metric in metrics.METRICS}
    means = {metric: one.value for metric, one in found.items()}
    return means | {"intervals": {metric: [one.low, one.high] for metric, one in found.items()}}


def _zero_shot(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """{method: the mean of its benchmarks with its interval, and each of them}."""
    metric, names = metrics.EXACT_MATCH.name, list(next(iter(runs[0].values())))
    figures = Figures(runs, list(runs[0]), names, fixed=True)
    found = {}
    for method in figures.methods:
        mean = figures.mean(metric, method)
        each = {name: float(np.mean([run[method][name][metric] for run in runs])) for name in names}
        zero_shot = {"accuracy": mean.value, "intervals": {"accuracy": [mean.low, mean.high]}}
        found[method] = {"zero_shot": zero_shot, "benchmarks": each}
    return found


def _over_seeds(scores: Sequence[Run], task) -> dict[str, dict[str, Score]]:
    """{method: {task: the score of the examples under all seeds}}."""
    known = [name for name in scores[0] if all(task in run[name] for run in scores)]
    return {name: {task: joined([run[name][task] for run in scores])} for name in known}
