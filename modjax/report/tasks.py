"""The task table: one row a task, one column a method, shaded within each row from worst to best."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from modjax.report import numbers
from modjax.report.colours import cluster_variable
from modjax.report.metric import METRICS, Metric, best

GROUPS = {False: "In distribution", True: "Held out"}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One score: its text, the number to sort by, its shade in [0, 1] and whether it is the row's best."""

    text: str
    value: float | None
    shade: float
    best: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One task with its cells, {metric key: one for each method}."""

    name: str
    family: str
    cluster: int | None
    variable: str
    cells: dict[str, list[Cell]]


def measured_metrics(tasks: Sequence[Mapping]) -> list[Metric]:
    """The metrics that at least one task has."""
    return [metric for metric in METRICS if any(task.get(metric.key) for task in tasks)]


def grouped_rows(tasks: Sequence[Mapping], methods: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """(group, rows) for the tasks in distribution and those held out, without empty groups."""
    metrics = measured_metrics(tasks)
    groups = []
    for held_out, group in GROUPS.items():
        rows = [_row(task, metrics, methods) for task in tasks if bool(task.get("held_out")) is held_out]
        if rows:
            groups.append((group, rows))
    return groups


def _row(task: Mapping, metrics: Sequence[Metric], methods: Sequence[str]) -> Row:
    cells = {}
    for metric in metrics:
        scores = task.get(metric.key) or {}
        cells[metric.key] = _cells(metric, [scores.get(method) for method in methods])
    cluster = task.get("cluster")
    return Row(task["name"], task.get("family") or "", cluster, cluster_variable(cluster), cells)


def _cells(metric: Metric, values: Sequence[Any]) -> list[Cell]:
    measured = [numbers.finite(value) for value in values]
    present = [number for number in measured if number is not None]
    good = metric.better(present) if present else 0.0
    bad = (min(present) + max(present) - good) if present else 0.0
    return [
        Cell(metric.show(number), number, _shade(number, good, bad), is_best)
        for number, is_best in zip(measured, best(metric, values), strict=True)
    ]


def _shade(number: float | None, good: float, bad: float) -> float:
    if number is None or good == bad:
        return 0.0
    return round((number - bad) / (good - bad), 2)
