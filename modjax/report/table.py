"""The comparison table: one row a method, for the page and for the terminal."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from modjax.report import numbers
from modjax.report.metric import METRICS, ROUTING_ACCURACY, Metric, best

WIDTH = 100  # columns of the terminal that the text table fits
GAP = " "
LEGEND = "* best of its column. Loss in nats per target token; exact match, Rouge-L and routing in %."


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: the heading over its group, its own heading, where its value stands in a method."""

    group: str
    heading: str
    short: str  # the heading in the terminal
    path: tuple[str, ...]
    metric: Metric | None = None  # None for times: the fastest is not marked as the best
    show: Callable[[Any], str] = numbers.seconds

    def values(self, methods: Sequence[Mapping]) -> list[Any]:
        return [_look_up(method, self.path) for method in methods]

    def cells(self, methods: Sequence[Mapping]) -> list[tuple[str, bool]]:
        """(text, is best) for each method."""
        values = self.values(methods)
        if self.metric is None:
            return [(self.show(value), False) for value in values]
        return list(zip(map(self.metric.show, values), best(self.metric, values), strict=True))


SPLITS = {"in_distribution": "In distribution", "held_out": "Held out"}
COLUMNS = (
    *(
        Column(group, metric.name, metric.short, (split, metric.key), metric)
        for split, group in SPLITS.items()
        for metric in METRICS
    ),
    Column("", ROUTING_ACCURACY.name, ROUTING_ACCURACY.short, (ROUTING_ACCURACY.key,), ROUTING_ACCURACY),
    Column("Seconds", "Train", "Train", ("seconds", "train")),
    Column("Seconds", "Evaluate", "Eval", ("seconds", "evaluate")),
)


def _look_up(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = (tree or {}).get(key)
    return tree


def measured_columns(methods: Sequence[Mapping]) -> list[Column]:
    """The columns in which at least one method has a number."""
    return [column for column in COLUMNS if set(map(numbers.finite, column.values(methods))) - {None}]


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """(heading, number of columns) of each run of columns under one heading."""
    return [(group, len(list(run))) for group, run in groupby(columns, key=lambda column: column.group)]


def text_table(results: Mapping) -> str:
    """The comparison of methods as aligned plain text, at most 100 columns wide; "" where there is none.

    `results` is described in `modjax.report`. The best value of a column carries a star.
    """
    methods = results.get("methods") or []
    columns = measured_columns(methods)
    if not methods:
        return ""
    blocks = [_text_column(column, methods) for column in columns]
    room = WIDTH - sum(len(GAP) + len(block[0]) for block in blocks)
    names = [_shorten(str(method["name"]), room) for method in methods]
    width = max(map(len, ["Method", *names]))
    left = [text.ljust(width) for text in ("Method", *names)]
    lines = [GAP.join(parts).rstrip() for parts in zip(left, *blocks, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([_group_line(columns, blocks, width), *lines, LEGEND])


def _text_column(column: Column, methods: Sequence[Mapping]) -> list[str]:
    """Heading and cells, right-aligned on their last digit: one place after it is kept for the star."""
    marked = [(text, "*" if is_best else " ") for text, is_best in column.cells(methods)]
    width = max(len(column.short), *(len(text) for text, _ in marked))
    return [column.short.rjust(width) + " ", *(text.rjust(width) + star for text, star in marked)]


def _group_line(columns: Sequence[Column], blocks: Sequence[list[str]], indent: int) -> str:
    """The headings over runs of columns, each right-aligned with the last column of its run."""
    line, start = " " * indent, 0
    for group, count in column_groups(columns):
        width = sum(len(GAP) + len(block[0]) for block in blocks[start : start + count])
        line += f"{group} ".rjust(width)
        start += count
    return line.rstrip()


def _shorten(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
