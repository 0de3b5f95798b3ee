"""Claims and their verdicts, for the page and for the terminal."""

import textwrap
from collections.abc import Mapping
from typing import Any

from modjax import metrics
from modjax.report import numbers
from modjax.report.table import WIDTH


def rows(results: Mapping) -> list[dict[str, Any]]:
    """The claims of `results["claims"]` with their numbers as text; a claim's other metrics follow its first."""
    found: list[dict[str, Any]] = []
    for claim in results.get("claims") or []:
        first = not found or found[-1]["claim"] != claim["claim"]
        found.append(
            {
                "claim": claim["claim"],
                "text": claim["text"] if first else "",
                "figure": claim["figure"],
                "metric": metrics.named(claim["metric"]).title,
                "value": numbers.precise(claim["value"]),
                "ends": "" if claim["low"] is None else f"{claim['low']:z.3f} to {claim['high']:z.3f}",
                "limit": f"{claim['limit']:g}",
                "verdict": claim["verdict"],
                "kind": claim["verdict"].replace(" ", "-"),
            }
        )
    return found


def text(results: Mapping) -> str:
    """The claims as plain text: each with its figures, their intervals and verdicts; "" without any."""
    lines = []
    for row in rows(results):
        if row["text"]:
            lines += textwrap.wrap(f"({row['claim']}) {row['text']}", WIDTH)
        if row["verdict"] == "not measured":
            lines.append(f"    {row['metric']}: not measured")
        else:
            lines += textwrap.wrap(
                f"{row['metric']}: {row['verdict'].upper()}. {row['figure']}: {row['value']} [{row['ends']}], "
                f"holds above {row['limit']}",
                WIDTH,
                initial_indent="    ",
                subsequent_indent="      ",
            )
    return "\n".join(lines)
