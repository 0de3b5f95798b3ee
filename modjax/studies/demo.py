"""The demo: private experts, their clusters, cluster experts and a shared expert, under several routers, compared."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from modjax import arguments
from modjax.data.tasks import Tasks, checked_tasks
from modjax.eval.sample import Sample
from modjax.model import Model
from modjax.studies import content, methods, results
from modjax.studies.experiment import Experiment
from modjax.studies.libraries import Libraries, trained
from modjax.studies.stages import Stages
from modjax.studies.trial import Trial
from modjax.train.settings import Settings

METHODS = {  # in the order of their validation losses in distribution, benchmarks/demo_seeds.py
    "base": {"library": "", "note": "the frozen model alone"},
    "uniform (private)": {"library": "private", "router": "uniform", "note": "mean of all experts"},
    "uniform (MBC)": {"library": "mbc", "router": "uniform", "note": "mean of the cluster experts"},
    "Arrow (MBC)": {"library": "mbc", "router": "arrow", "note": "top 4 per token"},
    "Arrow (private)": {"library": "private", "router": "arrow", "note": "top 4 per token"},
    "shared": {"library": "shared", "note": "one expert on all tasks"},
    "confident (private)": {"library": "private", "router": "confident", "note": "else the mean of all experts"},
    "confident, else general": {
        "library": "private_general",
        "router": {"name": "confident", "otherwise": "general"},
        "note": "else half shared, half MBC's mean",
    },
    "oracle (private)": {"library": "private", "router": "oracle", "note": "the task's own expert"},
}
ANALYSED = ("Arrow (private)", "Arrow (MBC)")
TRAINED = ("private", "mbc", "shared")


def demo(
    model: Model,
    tasks: Tasks,
    folder: str | pathlib.Path,
    settings: Mapping[str, Any],
    cluster: Mapping[str, Any],
    rows: Mapping[str, int],
    sample: Sample = Sample(),  # noqa: B008, frozen
    max_new_tokens: int = 64,
    shown: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs the demo in stages, which the folder keeps and which are not repeated; returns results for `modjax.report`.

    Args:
      folder: for private/, mbc/ and shared/, one library each, and a JSON file per stage.
      settings: of training the private library, see `modjax.train.settings.Settings`.
      cluster: arguments of `modjax.cluster.mbc`.
      rows: {"mbc" or "shared": rows per step and expert}; all libraries read as many rows in all.
      sample, max_new_tokens: as in `modjax.evaluate`.
      shown: tasks of which an example is shown token by token.
    """
    arguments.instance("model", model, Model)
    checked_tasks(tasks)
    settings = dataclasses.asdict(arguments.made(Settings, arguments.mapping("settings", settings, "{setting: value}")))
    cluster = arguments.mapping("cluster", cluster, "arguments of modjax.cluster.mbc")
    rows = arguments.mapping("rows", rows, "{kind: rows per step and expert}")
    arguments.instance("sample", sample, Sample)
    max_new_tokens = arguments.whole("max_new_tokens", max_new_tokens, least=1)
    shown = tuple(tasks.select(shown))
    stages = Stages(folder)
    inputs = content.of_study(model, tasks, settings, sample, max_new_tokens)
    stages.claim(inputs | {"cluster": dict(cluster), "rows": dict(rows), "shown": list(shown)})
    libraries = Libraries(model, tasks, stages, settings, cluster, rows)
    tried = trials(libraries, sample, max_new_tokens)
    stages.claim({kind: content.of_library(libraries.path(kind)) for kind in _kinds(METHODS)}, "trained", [])
    scores = {name: trial.scores() for name, trial in tried.items()}
    analysed = stages.json(
        "routing",
        lambda: {name: results.routing(model, tried[name].method, tasks, shown, sample) for name in ANALYSED},
    )
    return _collected(libraries, scores, analysed)


def trials(
    libraries: Libraries,
    sample: Sample,
    max_new_tokens: int,
    names: Sequence[str] = tuple(METHODS),
    stage: str = "evaluate",
) -> dict[str, Trial]:
    """{method: its trial} of the demo's methods of these names, whose libraries are trained if they are missing.

    Args:
      sample, max_new_tokens: as in `modjax.evaluate`.
      stage: the first word of the trials' stages; after it comes the method's name.
    """
    folders = {kind: libraries.path(kind) for kind in _kinds(names)}
    experiment = Experiment(libraries.model, libraries.tasks, folders, sample, max_new_tokens)
    how = experiment, libraries.tasks, sample, max_new_tokens
    return {name: Trial(libraries.stages, f"{stage} {name}", methods.normalised(METHODS[name]), *how) for name in names}


def _kinds(names) -> list[str]:
    """The libraries of these methods, the private one first: others are made of it, and each has its own time."""
    return [kind for kind in dict.fromkeys(METHODS[name]["library"] for name in names) if kind]


def _collected(libraries, scores, analysed) -> dict[str, Any]:
    """The results for the report."""
    model, tasks, settings, stages = libraries.model, libraries.tasks, libraries.settings, libraries.stages
    seconds, clusters = stages.seconds, libraries.clusters()
    compared = results.comparisons(scores, tasks)
    labels = dict(zip(clusters["experts"], clusters["labels"], strict=True))
    experts = f"rank {settings['rank']}, alpha {settings['alpha']:g}, {', '.join(settings['sites'])}"
    return {
        "title": "Experts, their clusters, and routers between them",
        "subtitle": f"{len(tasks.training)} tasks in training, {len(tasks.held_out)} held out, on {model.name}",
        "facts": results.facts(model, tasks, seconds, Experts=experts),
        "methods": [_row(name, line, compared, analysed.get(name), seconds) for name, line in METHODS.items()],
        "failed": results.failed({kind: libraries.path(kind) for kind in TRAINED}),
        "paired": results.paired(compared),
        "tasks": [results.task(task, scores, labels.get(task.name)) for task in tasks.values()],
        "curves": [results.curves(stages.folder / kind, kind) for kind in TRAINED],
        "similarity": {key: clusters[key] for key in ("experts", "similarity", "labels", "families", "adjusted_rand")},
        "analysis": [{"name": name, **found["analysis"]} for name, found in analysed.items()],
        "routing": [shown for found in analysed.values() for shown in found["views"]],
        "stages": results.stages(seconds),
    }


def _row(name, line, compared, analysed, seconds):
    training = [seconds[f"train {kind}"] for kind in trained(line["library"]) if f"train {kind}" in seconds]
    return results.method(name, line["note"], compared) | {
        "seconds": {"train": sum(training) if training else None, "evaluate": seconds.get(f"evaluate {name}")},
        "routing_accuracy": analysed["analysis"]["accuracy"] if analysed else None,
    }
