"""The HTML page: prepares the data of each section, fills the template and writes the file."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modjax import arguments, metrics
from modjax.files import check_file, os_errors
from modjax.metrics import LOSS
from modjax.report import claims, colours, numbers, table, tasks
from modjax.report.clusters import clusters
from modjax.report.explorer import SCALE, explorer
from modjax.report.metric import best, directions, show
from modjax.report.pairs import matrices

HERE = Path(__file__).parent
INDEX = "index.html"


def write(results: Mapping, path: str | os.PathLike) -> Path:
    """Writes the report of `results` (see `modjax.report`) as one self-contained file; returns its path.

    `path` is a folder, created if needed, that gets an `index.html`, or a file whose name ends in `.html`.
    The file appears whole or not at all. Raises InputError where the parts of `results` contradict each other.
    """
    path = arguments.path("path", path)
    target = path if path.suffix == ".html" else path / INDEX
    text = render(arguments.mapping("results", results, "results of an experiment, see modjax.report"))
    with os_errors(target, "written"):
        check_file(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text)
    return target


def _replace(target: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", dir=target.parent, prefix=f".{target.name}.", encoding="utf-8", delete=False
    ) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, target)


def render(results: Mapping) -> str:
    """The page as text, with its style, script and drawings inline."""
    import jinja2  # here, as matplotlib below, so that importing modjax.report is fast

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title=results.get("title") or "modjax experiment",
        subtitle=results.get("subtitle") or "",
        facts=_facts(results),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        findings=_findings(results),
        claims=claims.rows(results),
        comparison=_comparison(results),
        pairs=matrices(results),
        tasks=_tasks(results),
        curves=_curves(results),
        similarity=_similarity(results),
        analysis=_analysis(results),
        routing=_routing(results),
        stages=_stages(results),
        settings=list(_settings(results.get("config") or {})),
    )


def _facts(results: Mapping) -> dict[str, str]:
    failed = table.failed_experts(results)
    return dict(results.get("facts") or {}) | ({"Failed experts": failed} if failed else {})


def _findings(results: Mapping) -> list[dict[str, str]]:
    """The method or methods with the lowest loss, in distribution and held out."""
    methods = results.get("methods") or []
    findings = []
    for split, group in table.SPLITS.items():
        values = [(method.get(split) or {}).get(LOSS.name) for method in methods]
        winners = [method["name"] for method, wins in zip(methods, best(LOSS, values), strict=True) if wins]
        if winners:
            measured = [number for number in map(numbers.finite, values) if number is not None]
            lowest = show(LOSS, LOSS.best(measured))
            findings.append({"group": group, "winners": " and ".join(winners), "value": lowest})
    return findings


def _comparison(results: Mapping) -> dict[str, Any] | None:
    methods = results.get("methods") or []
    if not methods:
        return None
    from modjax.report import plots

    scored = [method for method in methods if not method.get("error")]
    variables = colours.method_variables(results)
    return {
        "units": directions(metrics.METRICS),
        "tables": [_method_table(columns, scored, variables) for columns in table.tables(scored)],
        "intervals": table.has_intervals(scored),
        "resampled": results.get("resampled") or "examples resampled within their tasks",
        "memory": any(method.get("bytes") for method in scored),
        "peak": any((method.get("bytes") or {}).get("peak") for method in scored),
        "failed": [method for method in methods if method.get("error")],
        "examples": _examples(scored),
        "plot": plots.comparison(scored, variables) if scored else "",
    }


def _method_table(columns: list[table.Column], methods: list[Mapping], variables: Mapping) -> dict[str, Any]:
    cells = [column.cells(methods) for column in columns]
    return {
        "groups": table.column_groups(columns),
        "columns": columns,
        "rows": [
            {
                "name": method["name"],
                "note": method.get("note") or "",
                "variable": variables[method["name"]],
                "cells": [column[index] for column in cells],
            }
            for index, method in enumerate(methods)
        ],
    }


def _examples(methods: list[Mapping]) -> dict[str, int]:
    """{group: number of examples}, for groups in which all scored methods have the same number."""
    examples = {}
    for split, group in table.SPLITS.items():
        counts = {(method.get(split) or {}).get("examples") for method in methods} - {None}
        if len(counts) == 1:
            examples[group] = counts.pop()
    return examples


def _analysis(results: Mapping) -> list[dict[str, Any]]:
    if not results.get("analysis"):
        return []
    from modjax.report import analysis

    return [analysis.shown(index, method) for index, method in enumerate(results["analysis"])]


def _tasks(results: Mapping) -> dict[str, Any] | None:
    if not results.get("tasks"):
        return None
    variables = colours.method_variables(results)
    return {
        "methods": [{"name": name, "variable": variable} for name, variable in variables.items()],
        "metrics": tasks.measured_metrics(results["tasks"]),
        "groups": tasks.grouped_rows(results["tasks"], list(variables)),
    }


def _curves(results: Mapping) -> list[str]:
    if not results.get("curves"):
        return []
    from modjax.report import plots

    return plots.curves(results["curves"], colours.expert_clusters(results))


def _similarity(results: Mapping) -> dict[str, Any] | None:
    similarity = results.get("similarity")
    if not similarity:
        return None
    from modjax.report import plots

    return {
        "clusters": clusters(similarity),
        "adjusted_rand": numbers.ratio(similarity.get("adjusted_rand")),
        "plot": plots.similarity(similarity["experts"], similarity["similarity"], similarity["labels"]),
    }


def _routing(results: Mapping) -> dict[str, Any] | None:
    if not results.get("routing"):
        return None
    return {"scale": SCALE, "sentences": explorer(results["routing"], colours.expert_clusters(results))}


def _stages(results: Mapping) -> dict[str, Any] | None:
    stages = results.get("stages") or []
    times = [numbers.finite(stage.get("seconds")) or 0.0 for stage in stages]
    if not stages:
        return None
    total, longest = sum(times), max(times)
    return {
        "total": numbers.duration(total),
        "rows": [
            {
                "name": stage["name"],
                "seconds": numbers.seconds(stage.get("seconds")),
                "share": numbers.percent(time / total if total else None),
                "length": round(100 * time / longest, 1) if longest else 0,
            }
            for stage, time in zip(stages, times, strict=True)
        ],
    }


def _settings(config: Mapping, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value), as on the command line."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
