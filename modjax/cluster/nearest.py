"""Assignment of new experts to existing clusters, without clustering again."""

from typing import NamedTuple

import numpy as np

from modjax.arguments import instance
from modjax.cluster.clusters import Clusters
from modjax.cluster.similarity import cross_similarity
from modjax.errors import InputError
from modjax.experts.library import Library


class Nearest(NamedTuple):
    """The assignment of N new experts to C clusters."""

    labels: np.ndarray  # int[N], the cluster of each new expert
    similarity: np.ndarray  # float32[N, C], its mean similarity to the members of each cluster


def nearest(clusters: Clusters, library: Library, new: Library, sparsity: float = 0.5) -> Nearest:
    """Assigns each new expert to the cluster with the highest mean similarity to it.

        s_nc = mean over the members e of c of cos(x_n, x_e);  label_n = argmax_c s_nc

    This is average linkage, as in the dendrogram. Similarities are computed without truncation.

    Args:
      clusters: a clustering of experts in `library`; other experts of the library are ignored.
      new: experts for the same base model; they need not be in the library.
      sparsity: that of the clustering; see `mbc`.

    Raises InputError if the library lacks an expert of the clusters, or the libraries do not fit one model.
    """
    instance("clusters", clusters, Clusters)
    instance("library", library, Library)
    columns = {expert: i for i, expert in enumerate(library.names)}
    missing = [expert for expert in clusters.experts if expert not in columns]
    if missing:
        raise InputError(f"the library has no expert {missing[0]!r}; expected all experts of the clusters")
    members = [[columns[expert] for expert in experts] for experts in clusters.names.values()]
    s_NE = np.asarray(cross_similarity(new, library, sparsity))
    mean_NC = np.stack([s_NE[:, ids].mean(axis=1) for ids in members], axis=1)
    return Nearest(np.asarray(list(clusters.names))[mean_NC.argmax(axis=1)], mean_NC)
