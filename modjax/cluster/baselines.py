"""Clusterings that know nothing of the experts' weights: what MBC is held against."""

from collections.abc import Mapping

import numpy as np

from modjax.cluster.clusters import Clusters, clustered
from modjax.errors import InputError
from modjax.experts.library import Library


def random(like: Clusters, seed: int = 42) -> Clusters:
    """A random partition of the same experts into clusters of the same sizes.

    Its similarity is that of `like`, and its inertia that of its own clusters on the rows of that similarity: what
    k-means on them would have to beat.

    Args:
      like: the clustering whose sizes are taken; its labels are dealt out anew.
      seed: of the deal.
    """
    labels = np.random.default_rng(seed).permutation(like.labels)
    return Clusters.of(like.experts, labels, like.similarity, _inertia(np.float64(like.similarity), labels))


def embedding(
    library: Library,
    vectors: Mapping[str, np.ndarray],
    clusters: int = 10,
    seed: int = 42,
    centre: bool = True,
    restarts: int = 64,
) -> Clusters:
    """k-means on the mean text embeddings of the experts' tasks.

        v_e = the mean of its tasks' vectors, less the mean over experts, as a unit vector;  S = V V^T

    Args:
      vectors: {task: float[D]}, the mean embedding of each task's texts; an expert of several tasks has their mean.
      clusters: K, at most the number of experts.
      seed: of the k-means starts.
      centre: whether the mean over experts is taken off before lengths are made equal. Hidden states of language models
        all point one way, so that uncentred unit vectors differ in little but their share of it; an encoder made for
        cosines needs no centring.
      restarts: as in `mbc`.

    Raises InputError for a task without a vector, and where vectors differ in length.
    """
    missing = [task for tasks in library.tasks for task in tasks if task not in vectors]
    if missing:
        raise InputError(f"no vector for task {missing[0]!r}; expected one for every task of the library's experts")
    if len(shapes := {np.shape(vectors[task]) for tasks in library.tasks for task in tasks}) > 1:
        raise InputError(f"vectors of shapes {sorted(shapes)}; expected one and the same for all tasks")
    means_ED = np.stack([np.mean([vectors[task] for task in tasks], axis=0) for tasks in library.tasks])
    means_ED = np.float64(means_ED) - (means_ED.mean(axis=0, keepdims=True) if centre else 0)
    length_E1 = np.linalg.norm(means_ED, axis=1, keepdims=True)
    unit_ED = np.float32(means_ED / np.where(length_E1 > 0, length_E1, 1))
    return clustered(library.names, unit_ED, unit_ED @ unit_ED.T, clusters, seed, restarts)


def _inertia(points_ED, labels):
    own = (points_ED[labels == label] for label in np.unique(labels))
    return sum(np.sum(np.square(points_nD - points_nD.mean(axis=0, keepdims=True))) for points_nD in own)
