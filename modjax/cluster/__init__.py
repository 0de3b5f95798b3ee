"""Which experts, and so which tasks, belong together.

`mbc` is the paper's clustering (arXiv 2405.11157, section 3.1); `random` and `embedding` are what it is compared with.
All give `Clusters`, whose `groups` are what `train_library` takes to train an expert for each.
"""

from modjax.cluster.agreement import adjusted_rand, silhouette
from modjax.cluster.baselines import embedding, random
from modjax.cluster.clusters import Clusters
from modjax.cluster.mbc import mbc
from modjax.cluster.nearest import Nearest, nearest
from modjax.cluster.similarity import cross_similarity, similarity
from modjax.cluster.sweep import Sweep, dendrogram, sweep

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
