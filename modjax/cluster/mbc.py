"""Model-based clustering (MBC, arXiv 2405.11157, section 3.1): tasks grouped by the similarity of their experts."""

from modjax.cluster.clusters import Clusters, clustered
from modjax.cluster.similarity import similarity
from modjax.experts.library import Library


def mbc(
    library: Library,
    clusters: int = 10,
    sparsity: float = 0.5,
    components: int = 64,
    seed: int = 42,
    restarts: int = 64,
) -> Clusters:
    """Clusters a library's experts: sparsify, truncate, cosine similarity, k-means on its rows.

    Args:
      clusters: K, the number of clusters, at most the number of experts.
      sparsity: the quantile of its own magnitudes at or below which an expert's entries count as zero.
      components: the rank that X is truncated to; with no more experts than that it is a mere rotation.
      seed: of the k-means starts.
      restarts: how many starts, of which the best counts; see `modjax.ops.linalg.kmeans`.
    """
    s_EE = similarity(library, sparsity=sparsity, components=components)
    return clustered(library.names, s_EE, s_EE, clusters, seed, restarts)
