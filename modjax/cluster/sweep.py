"""MBC for several numbers of clusters, and the dendrogram of the experts."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from modjax.arguments import refused
from modjax.cluster.agreement import adjusted_rand, distances, silhouette
from modjax.cluster.clusters import Clusters, checked_clusters, clustered
from modjax.cluster.similarity import similarity
from modjax.errors import InputError
from modjax.experts.library import Library


@dataclasses.dataclass(frozen=True)
class Sweep:
    """MBC for several numbers of clusters, from one similarity.

    Attributes:
      clusters: {K: the clustering into K clusters}.
      silhouette: {K: mean silhouette under 1 - S}, None for one cluster and for as many clusters as experts.
      adjusted_rand: {K: adjusted Rand index with the experts' families}; None if no families were given.
    """

    clusters: dict[int, Clusters]
    silhouette: dict[int, float | None]
    adjusted_rand: dict[int, float] | None


def sweep(
    library: Library,
    clusters: Iterable[int],
    sparsity: float = 0.5,
    components: int = 64,
    seed: int = 42,
    families: Sequence[Hashable] | None = None,
    restarts: int = 64,
) -> Sweep:
    """`mbc` for each number of clusters; the similarity is computed once.

    Args:
      clusters: the numbers K of clusters, each at most the number of experts.
      sparsity, components, seed, restarts: as in `mbc`, which gives the same clustering for each K.
      families: the kind of each expert, to compare with; None if unknown.

    Raises InputError for invalid settings.
    """
    if not isinstance(clusters, Iterable) or not (clusters := list(clusters)):
        raise refused("clusters", clusters, "at least one number of clusters")
    sizes = sorted({checked_clusters(one, len(library)) for one in clusters})
    s_EE = np.asarray(similarity(library, sparsity, components))
    found = {size: clustered(library.names, s_EE, s_EE, size, seed, restarts) for size in sizes}
    agreement = families and {size: adjusted_rand(one, families) for size, one in found.items()}
    return Sweep(found, {size: silhouette(one) for size, one in found.items()}, agreement)


def dendrogram(similarity_EE: np.ndarray) -> np.ndarray:
    """The tree of average linkage over the distance 1 - S, float64[E - 1, 4], in the form of `scipy.cluster.hierarchy`.

    Each row is a merge: its two nodes, their distance, the number of experts below it; node E + i is the i-th merge.
    Raises InputError for a single expert.
    """
    if len(similarity_EE) < 2:
        raise InputError(f"a dendrogram needs at least two experts; found {len(similarity_EE)}")
    return linkage(squareform(distances(similarity_EE)), method="average")
