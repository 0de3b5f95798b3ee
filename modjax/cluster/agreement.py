"""Measures of a clustering: its silhouette, and its agreement with another clustering or with known kinds."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score, silhouette_score

from modjax import arguments
from modjax.cluster.clusters import Clusters
from modjax.errors import InputError


def adjusted_rand(first: Clusters, second: Clusters | Sequence[Hashable]) -> float:
    """The adjusted Rand index (Hubert and Arabie, 1985): 1 for equal partitions, about 0 for unrelated ones.

    Args:
      second: another clustering of the same experts, in any order, or the kind of each expert of `first`.

    Raises InputError if the two are not of the same experts.
    """
    arguments.instance("first", first, Clusters)
    if isinstance(second, Clusters):
        if set(first.experts) != set(second.experts):
            differ = sorted(set(first.experts) ^ set(second.experts))
            raise InputError(f"the clusterings are of different experts; only one has {', '.join(differ[:5])}")
        labels = dict(zip(second.experts, second.labels.tolist(), strict=True))
        second = [labels[expert] for expert in first.experts]
    second = arguments.items("second", second, "Clusters, or a list with the kind of each expert")
    if not all(isinstance(kind, Hashable) for kind in second):
        raise arguments.refused("second", second, "kinds that can be compared, such as text")
    if len(second) != len(first.labels):
        raise InputError(f"{len(second)} kinds for {len(first.labels)} experts; expected one each")
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(second))}
    return float(adjusted_rand_score([numbers[kind] for kind in second], first.labels))


def silhouette(clusters: Clusters) -> float | None:
    """The mean silhouette (Rousseeuw, 1987) under the distance 1 - S, in [-1, 1].

    The mean of (b_e - a_e) / max(a_e, b_e), where a_e is the mean distance of expert e to the others in its cluster,
    and b_e its mean distance to the nearest other cluster; 0 for an expert alone in its cluster. Distances are between
    experts, as in the dendrogram; k-means instead uses distances between rows of S. None for one cluster and for as
    many clusters as experts, for which it is not defined.
    """
    if not 1 < len(arguments.instance("clusters", clusters, Clusters).names) < len(clusters.labels):
        return None
    return float(silhouette_score(distances(clusters.similarity), clusters.labels, metric="precomputed"))


def distances(similarity_EE: np.ndarray) -> np.ndarray:
    """1 - S, float64[E, E], corrected for rounding errors: symmetric, not negative, 0 on the diagonal."""
    distance_EE = np.maximum(1 - np.float64(similarity_EE), 0)
    distance_EE = (distance_EE + distance_EE.T) / 2
    np.fill_diagonal(distance_EE, 0)
    return distance_EE


def measures(clusters: Clusters, families: Sequence[Hashable | None]) -> dict[str, Any]:
    """The measures in clusters.json: families of the experts, adjusted Rand index with them, silhouette.

    families: one per expert, None if unknown; then the adjusted Rand index is None.
    """
    known = None not in families
    return {
        "families": list(families),
        "adjusted_rand": adjusted_rand(clusters, families) if known else None,
        "silhouette": silhouette(clusters),
    }
