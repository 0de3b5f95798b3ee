"""The comparison table: one row a method, for the page and for the terminal."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from modjax.report import numbers
from modjax.report.metric import METRICS, ROUTING_ACCURACY, Metric, best

WIDTH = 100  # columns of the terminal that the text table fits
GAP = " "
LEGEND = "* best of its column. Loss in nats per target token; exact match, Rouge-L and routing in %."
SPREAD = "± half the width of the interval that holds 95 % of resampled figures."


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure: as text, whether it is its column's best, and the ends of its interval where there is one."""

    text: str
    best: bool = False
    low: str = ""
    high: str = ""
    half: str = ""  # half the interval's width


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: the heading over its group, its own heading, where its value stands in a method."""

    group: str
    heading: str
    short: str  # the heading in the terminal
    path: tuple[str, ...]
    metric: Metric | None = None  # None for costs: the cheapest is not marked as the best
    show: Callable[[Any], str] = numbers.seconds

    def values(self, methods: Sequence[Mapping]) -> list[Any]:
        return [_look_up(method, self.path) for method in methods]

    def cells(self, methods: Sequence[Mapping]) -> list[Cell]:
        values = self.values(methods)
        if self.metric is None:
            return [Cell(self.show(value)) for value in values]
        wins = best(self.metric, values)
        return [self._cell(*one) for one in zip(values, wins, self.intervals(methods), strict=True)]

    def intervals(self, methods: Sequence[Mapping]) -> list[tuple[float, float] | None]:
        """(low, high) of each method, None where it has no interval."""
        ends = [_look_up(method, (*self.path[:-1], "intervals", self.path[-1])) for method in methods]
        measured = [tuple(map(numbers.finite, pair or (None, None))) for pair in ends]
        return [None if None in pair else pair for pair in measured]

    def _cell(self, value, wins, ends) -> Cell:
        show = self.metric.show
        if ends is None or numbers.finite(value) is None:
            return Cell(show(value), wins)
        return Cell(show(value), wins, show(ends[0]), show(ends[1]), show((ends[1] - ends[0]) / 2))


SPLITS = {"in_distribution": "In distribution", "held_out": "Held out"}
SCORES = (
    *(
        Column(group, metric.name, metric.short, (split, metric.key), metric)
        for split, group in SPLITS.items()
        for metric in METRICS
    ),
    Column("", ROUTING_ACCURACY.name, ROUTING_ACCURACY.short, (ROUTING_ACCURACY.key,), ROUTING_ACCURACY),
)
COSTS = (
    Column("Seconds", "Train", "Train", ("seconds", "train")),
    Column("Seconds", "Build", "Build", ("seconds", "build")),
    Column("Seconds", "Evaluate", "Eval", ("seconds", "evaluate")),
    Column("Seconds", "Compile", "Compile", ("seconds", "compile")),
    Column("", "ms a token", "ms/token", ("seconds", "token"), show=numbers.milliseconds),
    Column("Megabytes", "Experts", "Experts", ("bytes", "experts"), show=numbers.megabytes),
    Column("Megabytes", "Temporary", "Temporary", ("bytes", "temporary"), show=numbers.megabytes),
    Column("Megabytes", "Peak", "Peak", ("bytes", "peak"), show=numbers.megabytes),
)


def _look_up(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = (tree or {}).get(key)
    return tree


def tables(methods: Sequence[Mapping]) -> list[list[Column]]:
    """The columns in which at least one method has a number: in one table, or in one of scores and one of costs.

    Scores with intervals are wide, and costs then stand by themselves.
    """
    scores, costs = (_measured(columns, methods) for columns in (SCORES, COSTS))
    parts = (scores, costs) if has_intervals(methods) else ([*scores, *costs],)
    return [columns for columns in parts if columns] or [[]]


def has_intervals(methods: Sequence[Mapping]) -> bool:
    return any(pair for column in SCORES for pair in column.intervals(methods))


def _measured(columns: Sequence[Column], methods: Sequence[Mapping]) -> list[Column]:
    return [column for column in columns if set(map(numbers.finite, column.values(methods))) - {None}]


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """(heading, number of columns) of each run of columns under one heading."""
    return [(group, len(list(run))) for group, run in groupby(columns, key=lambda column: column.group)]


def text_table(results: Mapping) -> str:
    """The comparison of methods as aligned plain text, at most 100 columns wide; "" where there is none.

    `results` is described in `modjax.report`. The best value of a column carries a star. Methods that failed stand
    below, with what they failed of.
    """
    methods = results.get("methods") or []
    scored = [method for method in methods if not method.get("error")]
    parts = [_text_table(columns, scored) for columns in tables(scored)] if scored else []
    if parts:
        parts[-1] += "\n" + LEGEND + ("\n" + SPREAD if has_intervals(scored) else "")
    failed = [f"{method['name']} failed: {method['error']}" for method in methods if method.get("error")]
    return "\n\n".join([*parts, *(textwrap.fill(" ".join(text.split()), WIDTH) for text in failed)])


def _text_table(columns: Sequence[Column], methods: Sequence[Mapping]) -> str:
    blocks = [_text_column(column, methods) for column in columns]
    room = WIDTH - sum(len(GAP) + len(block[0]) for block in blocks)
    names = [_shorten(str(method["name"]), room) for method in methods]
    width = max(map(len, ["Method", *names]))
    left = [text.ljust(width) for text in ("Method", *names)]
    lines = [GAP.join(parts).rstrip() for parts in zip(left, *blocks, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([_group_line(columns, blocks, width), *lines])


def _text_column(column: Column, methods: Sequence[Mapping]) -> list[str]:
    """Heading and cells, right-aligned on their last digit: one place after it is kept for the star.

    Half widths stand behind the figures, aligned likewise.
    """
    cells = column.cells(methods)
    half = max(len(cell.half) for cell in cells)
    spread = [(f"±{cell.half}" if cell.half else "").rjust(half + 1 if half else 0) for cell in cells]
    texts = [cell.text + behind for cell, behind in zip(cells, spread, strict=True)]
    width = max(len(column.short), *map(len, texts))
    marked = [text.rjust(width) + ("*" if cell.best else " ") for text, cell in zip(texts, cells, strict=True)]
    return [column.short.rjust(width) + " ", *marked]


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
