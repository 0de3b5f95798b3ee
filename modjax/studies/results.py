"""The results of a job as the report takes them; the schema is that of `modjax.report`."""

import json
import platform
import time
from collections.abc import Mapping, Sequence

import jax

from modjax.data.tasks import Task, Tasks
from modjax.eval.analysis import analyse
from modjax.eval.comparison import Comparison, compare
from modjax.eval.evaluate import Method, prepared
from modjax.eval.score import Score
from modjax.eval.traces import view
from modjax.model import Model
from modjax.train import metrics

NAMES = {"loss": "loss", "exact_match": "exact_match", "rouge_l": "rougeL"}  # a score's, and the report's
CHOICE = ("examples", "split", "seed", "length", "system", "too_long")  # the settings that choose examples


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
    found = {NAMES[metric]: means[metric] for metric in NAMES}
    return found | {
        "examples": means["examples"],
        "intervals": {NAMES[metric]: list(intervals[metric]) for metric in NAMES},
    }


def paired(compared: Mapping[str, Comparison]) -> list[dict]:
    """Every pair of methods, part by part and metric by metric, where there are two."""
    return [
        {
            "part": part,
            "metric": NAMES[metric],
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
        **{NAMES[metric]: {name: getattr(score, metric) for name, score in own.items()} for metric in NAMES},
    }


def chosen(config) -> dict:
    """The part of `config.evaluate` that says which examples are read."""
    return {key: value for key, value in config.evaluate.items() if key in CHOICE}


def division(model: Model, method: Method, tasks: Tasks, shown: Sequence[str], chosen: Mapping) -> dict:
    """How a router divides the work among tasks in distribution, and an example of each task that is shown."""
    viewed = tasks.select([name for name in shown if name in tasks])
    return {
        "analysis": analyse(model, method, tasks.training, **chosen).as_json(),
        "views": [view(model, method, one) for one in prepared(model, method, viewed, **{**chosen, "examples": 1})],
    }


def facts(config, tasks: Tasks, seconds: Mapping[str, float], **more: str) -> dict[str, str]:
    """The headline: what was run, where, when, and how long it took."""
    device = jax.devices()[0]
    return {
        "Base model": config.model,
        "Tasks": f"{len(tasks)} of {config.tasks}",
        **more,
        "Device": f"{device.device_kind} x {jax.device_count()}, {platform.machine()}",
        "Wall clock": f"{sum(seconds.values()) / 60:.1f} min",
        "Date": time.strftime("%Y-%m-%d"),
    }


def curves(folder, name) -> dict:
    """The loss of each expert by step from a training folder's metrics."""
    lines = metrics.read(folder / "metrics.jsonl")
    found = {"name": name, **_series(line for line in lines if line["kind"] == "train")}
    validation = _series(line for line in lines if line["kind"] == "validation")
    return found | ({"validation": validation} if validation["steps"] else {})


def _series(lines):
    lines = list(lines)
    experts = lines[0]["loss"] if lines else ()
    return {
        "steps": [line["step"] for line in lines],
        "loss": {expert: [line["loss"][expert] for line in lines] for expert in experts},
    }


def stages(seconds: Mapping[str, float]) -> list[dict]:
    return [{"name": name, "seconds": taken} for name, taken in seconds.items()]


def resolved(config) -> dict:
    """The config as plain data."""
    return json.loads(config.to_json())
