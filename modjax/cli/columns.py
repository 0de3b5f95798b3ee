"""Rows of text in aligned columns."""

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """A line for each row; the columns of numbers are aligned on the right. A column without text but its heading, the
    first row's, is left out."""
    kept = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:]) or len(rows) == 1]
    widths = {i: max(len(row[i]) for row in rows) for i in kept}
    return ["  ".join(f"{row[i]:{'>' if i in numbers else '<'}{widths[i]}}" for i in kept).rstrip() for row in rows]
