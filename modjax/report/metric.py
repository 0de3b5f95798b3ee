"""The measures that methods are compared by: how each is written and which end of it is better."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from modjax.report import numbers


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measure of a method: its key in `results`, its names, its unit, its form and its better end."""

    key: str
    name: str
    short: str
    unit: str
    show: Callable[[Any], str]
    better: Callable[[Iterable[float]], float]  # min or max


LOSS = Metric("loss", "Loss", "Loss", "nats per target token", numbers.loss, min)
EXACT_MATCH = Metric("exact_match", "Exact match", "Exact", "%", numbers.percent, max)
ROUGE_L = Metric("rougeL", "Rouge-L", "Rouge-L", "%", numbers.percent, max)
ROUTING_ACCURACY = Metric("routing_accuracy", "Routing accuracy", "Routing", "%", numbers.percent, max)
METRICS = (LOSS, EXACT_MATCH, ROUGE_L)


def best(metric: Metric, values: Sequence[Any]) -> list[bool]:
    """Which of the values a reader would call best: all that are written like the best one.

    None is when fewer than two were measured, for then nothing was compared.
    """
    measured = [number for number in map(numbers.finite, values) if number is not None]
    if len(measured) < 2:
        return [False] * len(values)
    winner = metric.show(metric.better(measured))
    return [metric.show(value) == winner for value in values]
