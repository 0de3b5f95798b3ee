"""Clustering of experts, and so of the tasks that they were trained on.

`mbc` is the clustering of arXiv 2405.11157, section 3.1; `random` and `embedding` are its baselines. All return
`Clusters`, whose `groups` are an argument of `train_library`, to train one expert per cluster.
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
