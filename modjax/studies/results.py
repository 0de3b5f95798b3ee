"""The parts of a study's results, in the schema of `modjax.report`."""

import dataclasses
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence

import jax

from modjax import metrics
from modjax.data.tasks import Task, Tasks
from modjax.eval.analysis import analyse
from modjax.eval.comparison import Comparison, compare
from modjax.eval.method import Method
from modjax.eval.sample import Sample, prepared
from modjax.eval.score import Score
from modjax.eval.traces import view
from modjax.experts import index
from modjax.experts.library import Library
from modjax.model import Model
from modjax.parallel.distributed import from_first
from modjax.train import metrics as training_metrics


def comparisons(scores: Mapping[str, Mapping[str, Score]], tasks: Tasks) -> dict[str, Comparison]:
    """{part: methods side by side}, in distribution and held out, of {method: {task: score}}."""
    parts = {"in_distribution": tasks.training, "held_out": tasks.held_out}
    return {part: compare(scores, list(own)) for part, own in parts.items()}


def method(name: str, note: str, compared: Mapping[str, Comparison]) -> dict:
    """One line of the comparison: the scores of each part, with their intervals."""
    return {"name": name, "note": note} | {part: _scores(name, own) for part, own in compared.items()}


def _scores(name, comparison):
    if name not in comparison.means:
        return {}
    means, intervals = comparison.means[name], comparison.intervals[name]
    return means | {"intervals": {metric: list(ends) for metric, ends in intervals.items()}}


def paired(compared: Mapping[str, Comparison]) -> list[dict]:
    """Every pair of methods, part by part and metric by metric, where there are two."""
    return [
        {
            "part": part,
            "metric": metric,
            "names": list(own.names),
            **{field: matrix_MM.round(5).tolist() for field, matrix_MM in pairs._asdict().items()},
        }
        for part, own in compared.items()
        for metric, pairs in own.pairs.items()
        if len(own.names) > 1
    ]


def task(task: Task, scores: Mapping[str, Mapping[str, Score]], cluster: int | None = None) -> dict:
    """One task under every method that was scored on it."""
    own = {name: by_task[task.name] for name, by_task in scores.items() if task.name in by_task}
    return {
        "name": task.name,
        "family": task.family,
        "held_out": task.held_out,
        "cluster": cluster,
        **{metric.name: {name: score[metric.name] for name, score in own.items()} for metric in metrics.METRICS},
    }


def routing(model: Model, method: Method, tasks: Tasks, shown: Sequence[str], sample: Sample) -> dict:
    """The analysis of a router on the tasks in distribution, and token by token an example of each task in `shown`."""
    viewed = method.covered(tasks.select([name for name in shown if name in tasks]))
    one_each = prepared(model, viewed, dataclasses.replace(sample, examples=1))
    return {
        "analysis": analyse(model, method, tasks.training, sample).as_json(),
        "views": [view(model, method, one) for one in one_each],
    }


def failed(libraries: Mapping[str, Library | str | pathlib.Path]) -> dict[str, dict[str, int]]:
    """{library: {expert: step}} of the experts whose training failed; libraries may be given by their folders."""

    def steps(library):
        saved = None if isinstance(library, Library) else index.read(pathlib.Path(library))
        infos = [entry.info for entry in saved.entries] if saved else library.infos
        return {info.name: info.failed for info in infos if info.failed}

    def found():
        return {name: own for name, library in libraries.items() if (own := steps(library))}

    return from_first(found)


def facts(model: Model, tasks: Tasks, seconds: Mapping[str, float], **more: str) -> dict[str, str]:
    """The headline: what was run, where, when, and how long it took."""
    device = jax.devices()[0]
    return {
        "Base model": model.name,
        "Tasks": f"{len(tasks.training)}, and {len(tasks.held_out)} held out",
        **more,
        "Device": f"{device.device_kind} x {jax.device_count()}, {platform.machine()}",
        "Wall clock": f"{sum(seconds.values()) / 60:.1f} min",
        "Date": time.strftime("%Y-%m-%d"),
    }


def curves(folder, name) -> dict:
    """The loss of each expert by step from a training folder's metrics."""
    lines = training_metrics.read(folder / "metrics.jsonl")
    found = {"name": name, **_series(line for line in lines if line["kind"] == "train")}
    validation = _series(line for line in lines if line["kind"] == "validation")
    return found | ({"validation": validation} if validation["steps"] else {})


def _series(lines):
    losses: dict[int, dict[str, float]] = {}
    for line in lines:
        losses.setdefault(line["step"], {}).update(line["loss"])
    steps = sorted(losses)
    experts = dict.fromkeys(expert for own in losses.values() for expert in own)
    return {"steps": steps, "loss": {expert: [losses[step].get(expert) for step in steps] for expert in experts}}


def stages(seconds: Mapping[str, float]) -> list[dict]:
    return [{"name": name, "seconds": taken} for name, taken in seconds.items()]
