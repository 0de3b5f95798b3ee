"""Metrics in the report: how values are written, which value is best, and how legends explain them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from modjax.metrics import Metric
from modjax.report import numbers

ZERO_SHOT = Metric("accuracy", "zero-shot accuracy", "Zero-shot", "%", "higher")
ROUTING_ACCURACY = Metric("routing_accuracy", "routing", "Routing", "%", "higher")


def show(metric: Metric, value: Any) -> str:
    """The value as text: percent to one decimal, other units to three."""
    return numbers.percent(value) if metric.in_percent else numbers.precise(value)


def written(metric: Metric, value: Any) -> str:
    """Name, value and unit within a sentence, such as "loss 1.234 nats per target token"."""
    return f"{metric.text} {show(metric, value)} {metric.unit}"


def best(metric: Metric, values: Sequence[Any]) -> list[bool]:
    """Whether each value is shown as the best: all values that are written like the best one.

    None is where fewer than two were measured, because then nothing was compared.
    """
    measured = [number for number in map(numbers.finite, values) if number is not None]
    if len(measured) < 2:
        return [False] * len(values)
    winner = show(metric, metric.best(measured))
    return [show(metric, value) == winner for value in values]


def units(metrics: Iterable[Metric]) -> str:
    """The unit of each metric, such as "Loss in nats per target token; exact match and Rouge-L in %."."""
    return _sentence("; ".join(f"{_listed(own)} in {unit}" for unit, own in _grouped(metrics, lambda one: one.unit)))


def directions(metrics: Iterable[Metric]) -> str:
    """The unit and the better end of each metric, such as "Loss is in nats per target token, lower is better."."""
    return " ".join(
        _sentence(f"{_listed(own)} {'is' if len(own) == 1 else 'are'} in {unit}, {better} is better")
        for (unit, better), own in _grouped(metrics, lambda one: (one.unit.replace("%", "percent"), one.better))
    )


def _grouped(metrics: Iterable[Metric], key: Callable[[Metric], Any]) -> list[tuple[Any, list[Metric]]]:
    """(key, the metrics that share it), in order of first appearance."""
    found: dict[Any, list[Metric]] = {}
    for metric in metrics:
        found.setdefault(key(metric), []).append(metric)
    return list(found.items())


def _listed(metrics: Sequence[Metric]) -> str:
    """Such as "loss, exact match and Rouge-L"."""
    *names, last = [metric.text for metric in metrics]
    return f"{', '.join(names)} and {last}" if names else last


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
