"""The paired comparison: the difference of every two methods, over the same draws of examples."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from modjax.errors import InputError
from modjax.metrics import LOSS
from modjax.report import numbers
from modjax.report.table import SPLITS

FIELDS = ("difference", "low", "high", "below")


@dataclasses.dataclass(frozen=True)
class Cell:
    """The row's loss minus the column's: as text, as the tooltip, and whether 0 is outside of its interval."""

    text: str
    title: str
    verdict: str  # "better" or "worse" outside, "unsure" inside; "same" on the diagonal


@dataclasses.dataclass(frozen=True)
class Matrix:
    """One part of the tasks: a row per method, and the methods that may be as good as the one with the lowest loss."""

    group: str
    names: list[str]
    rows: list[list[Cell]]
    best: str
    close: list[str]


def matrices(results: Mapping) -> list[Matrix]:
    """The differences in loss, in distribution and held out. Raises InputError for a matrix that is not M x M."""
    return [
        _matrix(pairs)
        for part in SPLITS
        for pairs in results.get("paired") or []
        if pairs["part"] == part and pairs["metric"] == LOSS.name
    ]


def _matrix(pairs: Mapping) -> Matrix:
    names = list(pairs["names"])
    for field in FIELDS:
        if {len(names)} != {len(pairs[field]), *map(len, pairs[field])}:
            size = f"{len(names)} x {len(names)}"
            raise InputError(f"results: paired.{field} must be {size}, with one row and one column per name")
    rows = [[_cell(names, pairs, i, j) for j in range(len(names))] for i in range(len(names))]
    lowest = min(range(len(names)), key=lambda i: sum(value or 0.0 for value in pairs["difference"][i]))
    close = [names[j] for j, cell in enumerate(rows[lowest]) if cell.verdict == "unsure"]
    return Matrix(SPLITS[pairs["part"]], names, rows, names[lowest], close)


def _cell(names: Sequence[str], pairs: Mapping, i: int, j: int) -> Cell:
    if i == j:
        return Cell("", "", "same")
    difference, low, high, below = (numbers.finite(pairs[field][i][j]) for field in FIELDS)
    verdict = "unsure" if None in (low, high) or low <= 0 <= high else "better" if high < 0 else "worse"
    title = (
        f"{names[i]} minus {names[j]}: {_signed(difference, 3)}, 95 % {_signed(low, 3)} to {_signed(high, 3)}; "
        f"below 0 in {numbers.percent(below)} % of draws"
    )
    return Cell(_signed(difference, 2), title, verdict)


def _signed(value: Any, digits: int) -> str:
    number = numbers.finite(value)
    if number is None:
        return numbers.DASH
    return f"{number:+.{digits}f}".replace("-", "−")
