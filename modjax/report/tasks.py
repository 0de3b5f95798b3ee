"""The task table: one row per task, one column per method, shaded within each row from worst to best."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from modjax import metrics
from modjax.metrics import Metric
from modjax.report import numbers
from modjax.report.colours import cluster_variable
from modjax.report.metric import best, show
from modjax.report.table import SPLITS


@dataclasses.dataclass(frozen=True)
class Cell:
    """One score: its text, the number to sort by, its shade in [0, 1] and whether it is the row's best."""

    text: str
    value: float | None
    shade: float
    best: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One task with its cells, {metric: one for each method}."""

    name: str
    family: str
    cluster: int | None
    variable: str
    cells: dict[str, list[Cell]]


def measured_metrics(tasks: Sequence[Mapping]) -> list[Metric]:
    """The metrics that at least one task has."""
    return [metric for metric in metrics.METRICS if any(task.get(metric.name) for task in tasks)]


def grouped_rows(tasks: Sequence[Mapping], methods: Sequence[str]) -> list[tuple[str, list[Row]]]:
    """(group, rows) for the tasks in distribution and those held out, without empty groups."""
    measured = measured_metrics(tasks)
    groups = []
    for split, group in SPLITS.items():
        own = [task for task in tasks if bool(task.get("held_out")) is (split == "held_out")]
        rows = [_row(task, measured, methods) for task in own]
        if rows:
            groups.append((group, rows))
    return groups


def _row(task: Mapping, measured: Sequence[Metric], methods: Sequence[str]) -> Row:
    cells = {}
    for metric in measured:
        scores = task.get(metric.name) or {}
        cells[metric.name] = _cells(metric, [scores.get(method) for method in methods])
    cluster = task.get("cluster")
    return Row(task["name"], task.get("family") or "", cluster, cluster_variable(cluster), cells)


def _cells(metric: Metric, values: Sequence[Any]) -> list[Cell]:
    measured = [numbers.finite(value) for value in values]
    present = [number for number in measured if number is not None]
    good = metric.best(present) if present else 0.0
    bad = (min(present) + max(present) - good) if present else 0.0
    return [
        Cell(show(metric, number), number, _shade(number, good, bad), is_best)
        for number, is_best in zip(measured, best(metric, values), strict=True)
    ]


def _shade(number: float | None, good: float, bad: float) -> float:
    if number is None or good == bad:
        return 0.0
    return round((number - bad) / (good - bad), 2)
