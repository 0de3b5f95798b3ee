"""The members of each cluster: its experts and their families."""

import dataclasses
from collections.abc import Mapping

from modjax.errors import InputError
from modjax.report.colours import cluster_variable


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One cluster: its label, its CSS variable, (expert, family) of each member."""

    label: int
    variable: str
    members: list[tuple[str, str]]


def clusters(similarity: Mapping) -> list[Cluster]:
    """The clusters in order of their labels. Raises InputError where labels or similarities do not fit the experts."""
    names, labels = similarity["experts"], similarity["labels"]
    families = similarity.get("families") or [""] * len(names)
    _check(similarity, {"labels": labels, "families": families, "similarity": similarity["similarity"]})
    members: dict[int, list[tuple[str, str]]] = {}
    for name, label, family in zip(names, labels, families, strict=True):
        members.setdefault(label, []).append((name, family or ""))
    return [Cluster(label, cluster_variable(label), members[label]) for label in sorted(members)]


def _check(similarity: Mapping, parts: Mapping) -> None:
    expected = len(similarity["experts"])
    for key, part in parts.items():
        if len(part) != expected:
            raise InputError(f"results: similarity.{key} has {len(part)} entries; expected {expected}, one per expert")
    for row, name in zip(similarity["similarity"], similarity["experts"], strict=True):
        if len(row) != expected:
            raise InputError(
                f"results: the similarity.similarity row of {name!r} has {len(row)} entries; expected {expected}"
            )
