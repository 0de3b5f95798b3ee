"""The comparison table: one row per method, for the page and for the terminal."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from modjax import arguments, metrics
from modjax.metrics import Metric
from modjax.report import numbers
from modjax.report.metric import ROUTING_ACCURACY, ZERO_SHOT, best, show, units

WIDTH = 100  # characters per line of the text table, at most
NAMES = 12  # of them at least this many for the names of methods
GAP = " "
SPREAD = "± half the width of the interval that holds 95 % of resampled figures."


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure as text, whether it is the best of its column, and the ends of its interval if there is one."""

    text: str
    best: bool = False
    low: str = ""
    high: str = ""
    half: str = ""  # half the interval's width


@dataclasses.dataclass(frozen=True)
class Column:
    """One column: the heading above its group, its own heading, and the path of its value in a method."""

    group: str
    heading: str
    short: str  # the heading in the terminal
    path: tuple[str, ...]
    metric: Metric | None = None  # None for costs, of which none is marked as the best
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
        text = show(self.metric, value)
        if ends is None or numbers.finite(value) is None:
            return Cell(text, wins)
        low, high = ends
        return Cell(text, wins, *(show(self.metric, number) for number in (low, high, (high - low) / 2)))


SPLITS = {"in_distribution": "In distribution", "held_out": "Held out"}
ROUTING = Column("", "Routing accuracy", ROUTING_ACCURACY.short, (ROUTING_ACCURACY.name,), ROUTING_ACCURACY)
ACCURACY = Column("", "Zero-shot", ZERO_SHOT.short, ("zero_shot", ZERO_SHOT.name), ZERO_SHOT)
COSTS = (
    Column("Seconds", "Train", "Train", ("seconds", "train")),
    Column("Seconds", "Build", "Build", ("seconds", "build")),
    Column("Seconds", "Evaluate", "Eval", ("seconds", "evaluate")),
    Column("Seconds", "Compile", "Compile", ("seconds", "compile")),
    Column("", "ms per token", "ms/token", ("seconds", "token"), show=numbers.milliseconds),
    Column("Megabytes", "Experts", "Experts", ("bytes", "experts"), show=numbers.megabytes),
    Column("Megabytes", "Temporary", "Temporary", ("bytes", "temporary"), show=numbers.megabytes),
    Column("Megabytes", "Peak", "Peak", ("bytes", "peak"), show=numbers.megabytes),
)


def score_columns() -> list[Column]:
    """A column for each metric in distribution and held out, for zero-shot benchmarks, and for routing accuracy."""
    scores = [
        Column(group, metric.title, metric.short, (split, metric.name), metric)
        for split, group in SPLITS.items()
        for metric in metrics.METRICS
    ]
    return [*scores, ACCURACY, ROUTING]


def _look_up(tree: Any, path: Sequence[str]) -> Any:
    for key in path:
        tree = (tree or {}).get(key)
    return tree


def tables(methods: Sequence[Mapping]) -> list[list[Column]]:
    """The columns in which at least one method has a number: in one table, or in one of scores and one of costs.

    Scores with intervals are wide, so costs then have their own table.
    """
    scores, costs = (_measured(columns, methods) for columns in (score_columns(), COSTS))
    parts = (scores, costs) if has_intervals(methods) else ([*scores, *costs],)
    return [columns for columns in parts if columns] or [[]]


def has_intervals(methods: Sequence[Mapping]) -> bool:
    return any(pair for column in score_columns() for pair in column.intervals(methods))


def _measured(columns: Sequence[Column], methods: Sequence[Mapping]) -> list[Column]:
    return [column for column in columns if set(map(numbers.finite, column.values(methods))) - {None}]


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """(heading, number of columns) of each run of columns with the same group heading."""
    return [(group, len(list(run))) for group, run in groupby(columns, key=lambda column: column.group)]


def text_table(results: Mapping) -> str:
    """The comparison of methods as aligned plain text, at most 100 characters wide; "" without methods.

    `results` is described in `modjax.report`. A star marks the best value of a column. Methods that failed are listed
    below, each with its error, and then the experts whose training failed.
    """
    results = arguments.mapping("results", results, "results of an experiment, see modjax.report")
    methods = results.get("methods") or []
    scored = [method for method in methods if not method.get("error")]
    parts = [_text_table(part, scored) for columns in tables(scored) for part in _fitting(columns, scored) if scored]
    if parts:
        parts[-1] += "\n" + _legend(scored) + ("\n" + SPREAD if has_intervals(scored) else "")
    failed = [f"{method['name']} failed: {method['error']}" for method in methods if method.get("error")]
    if experts := failed_experts(results):
        failed.append(f"Experts whose training failed: {experts}")
    return "\n\n".join([*parts, *(textwrap.fill(" ".join(text.split()), WIDTH) for text in failed)])


def failed_experts(results: Mapping) -> str:
    """The experts of `results["failed"]` with library and step, in one line; "" without any."""
    steps = [(*item, library) for library, own in (results.get("failed") or {}).items() for item in own.items()]
    return ", ".join(f"{expert} (of {library}, at step {step})" for expert, step, library in steps)


def _legend(methods: Sequence[Mapping]) -> str:
    zero_shot = [ZERO_SHOT] if any(method.get("zero_shot") for method in methods) else []
    return textwrap.fill(f"* best of its column. {units([*metrics.METRICS, *zero_shot, ROUTING_ACCURACY])}", WIDTH)


def _fitting(columns: Sequence[Column], methods: Sequence[Mapping]) -> list[list[Column]]:
    """The columns, group by group, in as many tables as their width needs."""
    parts, room = [[]], WIDTH - NAMES
    for _, run in groupby(columns, key=lambda column: column.group):
        group = list(run)
        width = sum(len(GAP) + len(_text_column(column, methods)[0]) for column in group)
        if parts[-1] and width > room:
            parts.append([])
            room = WIDTH - NAMES
        parts[-1] += group
        room -= width
    return parts


def _text_table(columns: Sequence[Column], methods: Sequence[Mapping]) -> str:
    blocks = [_text_column(column, methods) for column in columns]
    room = WIDTH - sum(len(GAP) + len(block[0]) for block in blocks)
    names = [_shorten(str(method["name"]), max(room, NAMES)) for method in methods]
    width = max(map(len, ["Method", *names]))
    left = [text.ljust(width) for text in ("Method", *names)]
    lines = [GAP.join(parts).rstrip() for parts in zip(left, *blocks, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([_group_line(columns, blocks, width), *lines])


def _text_column(column: Column, methods: Sequence[Mapping]) -> list[str]:
    """Heading and cells, right-aligned on their last digit, with one character after it for the star.

    Half widths follow the figures, aligned in the same way.
    """
    cells = column.cells(methods)
    half = max(len(cell.half) for cell in cells)
    spread = [(f"±{cell.half}" if cell.half else "").rjust(half + 1 if half else 0) for cell in cells]
    texts = [cell.text + after for cell, after in zip(cells, spread, strict=True)]
    width = max(len(column.short), *map(len, texts))
    marked = [text.rjust(width) + ("*" if cell.best else " ") for text, cell in zip(texts, cells, strict=True)]
    return [column.short.rjust(width) + " ", *marked]


def _group_line(columns: Sequence[Column], blocks: Sequence[list[str]], indent: int) -> str:
    """The headings above runs of columns, each right-aligned with the last column of its run."""
    line, start = " " * indent, 0
    for group, count in column_groups(columns):
        width = sum(len(GAP) + len(block[0]) for block in blocks[start : start + count])
        line += f"{group} ".rjust(width)
        start += count
    return line.rstrip()


def _shorten(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
