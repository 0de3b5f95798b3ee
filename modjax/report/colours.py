"""Colours of methods and experts: of a method by its place in the results, of an expert by its cluster.

Colours are CSS expressions over the variables of `page.css`, which has a light and a dark value for each:
the methods' palette follows Okabe and Ito, the clusters' Paul Tol's "muted", both made for colour-blind
readers.
"""

import re
from collections.abc import Iterable, Mapping

from modjax.metrics import LOSS

METHODS = 9  # --method-0 ... in page.css
CLUSTERS = 10  # --cluster-0 ... in page.css
CLUSTER_NAME = re.compile(r"(?:mbc|cluster)[\W_]*(\d+)", re.IGNORECASE)


def method_names(results: Mapping) -> list[str]:
    """Every method of the comparison that did not fail, then those that appear only in the tasks, in order."""
    compared = [method["name"] for method in results.get("methods") or [] if not method.get("error")]
    scored = [name for task in results.get("tasks") or [] for name in task.get(LOSS.name) or {}]
    return list(dict.fromkeys([*compared, *scored]))


def method_variables(results: Mapping) -> dict[str, str]:
    """{method: the name of its CSS variable}."""
    return {name: f"method-{index % METHODS}" for index, name in enumerate(method_names(results))}


def expert_clusters(results: Mapping) -> dict[str, int]:
    """{expert: cluster}, from the clustering where there is one, else from the tasks."""
    tasks = [task for task in results.get("tasks") or [] if task.get("cluster") is not None]
    placed = {task["name"]: task["cluster"] for task in tasks}
    similarity = results.get("similarity") or {}
    return placed | dict(zip(similarity.get("experts", ()), similarity.get("labels", ()), strict=False))


def cluster_of(expert: str, clusters: Mapping[str, int]) -> int | None:
    """The cluster that an expert was trained in or on, or None."""
    if expert in clusters:
        return clusters[expert]
    named = CLUSTER_NAME.fullmatch(expert.strip())
    return int(named[1]) if named else None


def cluster_variable(cluster: int | None) -> str:
    """The CSS variable of a cluster; the muted text colour for no cluster."""
    return "muted" if cluster is None else f"cluster-{cluster % CLUSTERS}"


def expert_colours(experts: Iterable[str], clusters: Mapping[str, int]) -> list[str]:
    """A CSS colour for each expert: the hue of its cluster, in a different shade for each expert of it.

    Experts without a cluster take the hues in turn.
    """
    hues: dict[str, list[int]] = {}
    experts = list(experts)
    for index, expert in enumerate(experts):
        cluster = cluster_of(expert, clusters)
        hues.setdefault(cluster_variable(index if cluster is None else cluster), []).append(index)
    colours = [""] * len(experts)
    for variable, members in hues.items():
        for place, index in enumerate(members):
            colours[index] = _shade(variable, (2 * place + 1) / len(members) - 1)
    return colours


def _shade(variable: str, lightness: float) -> str:
    """The variable's colour, mixed towards black (-1, keeping 75 %) or white (1, keeping 55 %)."""
    if lightness == 0:
        return f"var(--{variable})"
    kept, other = (100 - 45 * lightness, "white") if lightness > 0 else (100 + 25 * lightness, "black")
    return f"color-mix(in oklab, var(--{variable}) {kept:.0f}%, {other})"
