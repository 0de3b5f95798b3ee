"""One library clustered into ever more clusters, and the tree that its similarities make."""

import dataclasses
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from modjax.cluster.agreement import adjusted_rand, distances, silhouette
from modjax.cluster.clusters import Clusters, clustered
from modjax.cluster.similarity import similarity
from modjax.errors import InputError
from modjax.experts.library import Library


@dataclasses.dataclass(frozen=True)
class Sweep:
    """MBC for several numbers of clusters over one similarity.

    Attributes:
      clusters: {K: the clustering into K}; each has its inertia.
      silhouette: {K: mean silhouette under 1 - S}, None for 1 cluster and for as many as experts.
      adjusted_rand: {K: agreement with the experts' families}; None where a family is unknown.
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
      clusters: the numbers K to try, each at most the number of experts.
      sparsity, components, seed, restarts: as in `mbc`, whose result each K's is.
      families: the kind of each expert where that is known, to compare with.
    """
    sizes = sorted(set(clusters))
    if not sizes or not 1 <= sizes[0] <= sizes[-1] <= len(library):
        raise InputError(f"clusters={sizes}: expected numbers from 1 to {len(library)}, the number of experts")
    s_EE = np.asarray(similarity(library, sparsity, components))
    found = {size: clustered(library.names, s_EE, s_EE, size, seed, restarts) for size in sizes}
    agreement = families and {size: adjusted_rand(one, families) for size, one in found.items()}
    return Sweep(found, {size: silhouette(one) for size, one in found.items()}, agreement)


def dendrogram(similarity_EE: np.ndarray) -> np.ndarray:
    """The tree of average linkage over the distance 1 - S, float64[E - 1, 4], as `scipy.cluster.hierarchy` has it.

    Each row is a merge: the two nodes, their distance, the experts below; node E + i is the i-th merge.
    """
    if len(similarity_EE) < 2:
        raise InputError("a dendrogram of one expert; expected at least two")
    return linkage(squareform(distances(similarity_EE)), method="average")
