"""The results of a demo as the report takes them; the schema is that of `modjax.report`."""

import json
import platform
import time

import jax

from modjax.eval.evaluate import Score, summary
from modjax.train import metrics

TRAINED_BY = {"shared": "shared", "private": "private", "MBC": "mbc"}


def collect(config, model, tasks, methods, scores, clusters, traces, stages) -> dict:
    """One dictionary of everything that was measured, ready for JSON."""
    seconds = stages.seconds
    by_method = {
        name: {task: Score(**score) for task, score in found["tasks"].items()} for name, found in scores.items()
    }
    return {
        "title": "A library of experts, and who answers",
        "subtitle": f"{len(tasks.training)} tasks in training, {len(tasks.held_out)} held out, on {model.name}",
        "facts": _facts(config, tasks, seconds),
        "methods": [_method(method, by_method, tasks, traces, seconds) for method in methods],
        "tasks": [_task(task, by_method, clusters) for task in tasks.values()],
        "curves": [curves(stages.folder / name, name) for name in ("private", "mbc", "shared")],
        "similarity": {key: clusters[key] for key in ("names", "matrix", "labels", "families", "adjusted_rand")},
        "routing": traces["views"],
        "stages": [{"name": name, "seconds": taken} for name, taken in seconds.items()],
        "config": json.loads(config.to_json()),
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


def _facts(config, tasks, seconds):
    device = jax.devices()[0]
    return {
        "Base model": config.model,
        "Tasks": f"{len(tasks)} of {config.tasks}",
        "Experts": f"rank {config.train.rank}, alpha {config.train.alpha:g}, {', '.join(config.train.sites)}",
        "Device": f"{device.device_kind} x {jax.device_count()}, {platform.machine()}",
        "Wall clock": f"{sum(seconds.values()) / 60:.1f} min",
        "Date": time.strftime("%Y-%m-%d"),
    }


def _method(method, by_method, tasks, traces, seconds):
    trained = next((key for part, key in TRAINED_BY.items() if part in method.name), None)
    return {
        "name": method.name,
        "note": method.note,
        "in_distribution": _means(by_method[method.name], tasks.training),
        "held_out": _means(by_method[method.name], tasks.held_out),
        "seconds": {"train": seconds.get(f"train {trained}"), "evaluate": seconds.get(f"evaluate {method.name}")},
        "routing_accuracy": traces["accuracy"].get(method.name),
    }


def _means(scores, tasks):
    means = summary(scores, list(tasks))
    if means is None:
        return {}
    return {"rougeL" if key == "rouge_l" else key: value for key, value in means.items()}


def _task(task, by_method, clusters):
    labels = dict(zip(clusters["names"], clusters["labels"], strict=True))
    scored = {name: scores[task.name] for name, scores in by_method.items() if task.name in scores}
    return {
        "name": task.name,
        "family": task.family,
        "held_out": task.held_out,
        "cluster": labels.get(task.name),
        "loss": {name: score.loss for name, score in scored.items()},
        "exact_match": {name: score.exact_match for name, score in scored.items()},
        "rougeL": {name: score.rouge_l for name, score in scored.items()},
    }
