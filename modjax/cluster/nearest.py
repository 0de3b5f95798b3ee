"""The cluster that a new expert belongs to, without clustering again."""

from typing import NamedTuple

import numpy as np

from modjax.cluster.clusters import Clusters
from modjax.cluster.similarity import cross_similarity
from modjax.errors import InputError
from modjax.experts.library import Library


class Nearest(NamedTuple):
    """Where new experts belong."""

    labels: np.ndarray  # int[N], the cluster of each
    similarity: np.ndarray  # float32[N, C], its mean similarity with each cluster's members


def nearest(clusters: Clusters, library: Library, new: Library, sparsity: float = 0.5) -> Nearest:
    """For each expert of another library the cluster with whose members its mean similarity is highest.

        s_nc = mean over the members e of c of cos(x_n, x_e);  label_n = argmax_c s_nc

    It is the rule of average linkage, as in the dendrogram. Similarities are not truncated.

    Args:
      clusters: of experts that `library` has; others of its experts take no part.
      new: experts for the same base model; they need not be in the library.
      sparsity: as the clusters were made with; see `mbc`.

    Raises InputError where the library lacks an expert of the clusters, or the libraries do not fit one model.
    """
    columns = {expert: i for i, expert in enumerate(library.names)}
    missing = [expert for expert in clusters.experts if expert not in columns]
    if missing:
        raise InputError(f"the library has no expert {missing[0]!r}; expected all of the clusters' experts")
    members = [[columns[expert] for expert in experts] for experts in clusters.names.values()]
    s_NE = np.asarray(cross_similarity(new, library, sparsity))
    mean_NC = np.stack([s_NE[:, ids].mean(axis=1) for ids in members], axis=1)
    return Nearest(np.asarray(list(clusters.names))[mean_NC.argmax(axis=1)], mean_NC)
