"""Model-based clustering (MBC, arXiv 2405.11157, section 3.1): tasks grouped by the similarity of their experts."""

from modjax.cluster.clusters import Clusters, checked_clusters, clustered
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
    """Clusters a library's experts: sparsification, truncation, cosine similarity, k-means on its rows.

    Args:
      clusters: K, the number of clusters, at most the number of experts.
      sparsity: the quantile of its own magnitudes at or below which an expert's entries count as zero.
      components: the rank that the matrix of experts is truncated to; no effect if there are at most that many experts.
      seed: of the k-means starts.
      restarts: number of k-means starts, of which the best is kept; see `modjax.ops.kmeans`.

    Warns if fewer clusters are found, and names experts whose training failed; see `similarity`. Raises InputError for
    invalid settings.
    """
    checked_clusters(clusters, len(library))
    s_EE = similarity(library, sparsity=sparsity, components=components)
    return clustered(library.names, s_EE, s_EE, clusters, seed, restarts)
