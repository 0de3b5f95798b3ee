"""Which experts, and so which tasks, belong together.

`mbc` is the paper's clustering (arXiv 2405.11157, section 3.1); `random` and `embedding` are what it is compared with.
All give `Clusters`, whose `groups` are what `train_library` takes to train an expert for each.
"""

from modjax.experts.cluster.agreement import adjusted_rand, silhouette
from modjax.experts.cluster.baselines import embedding, random
from modjax.experts.cluster.clusters import Clusters
from modjax.experts.cluster.mbc import mbc
from modjax.experts.cluster.nearest import Nearest, nearest
from modjax.experts.cluster.similarity import cross_similarity, similarity
from modjax.experts.cluster.sweep import Sweep, dendrogram, sweep

__all__ = [
    "Clusters",
    "Nearest",
    "Sweep",
    "adjusted_rand",
    "cross_similarity",
    "dendrogram",
    "embedding",
    "mbc",
    "nearest",
    "random",
    "silhouette",
    "similarity",
    "sweep",
]
