"""Baselines of MBC: clusterings that do not use the experts' weights."""

from collections.abc import Mapping

import numpy as np

from modjax import arguments
from modjax.cluster.clusters import Clusters, clustered
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.norms import unit


def random(like: Clusters, seed: int = 42) -> Clusters:
    """A random partition of the same experts into clusters of the same sizes.

    The similarity is that of `like`; the inertia is computed for the random clusters on the rows of that similarity, so
    that it can be compared with that of k-means.

    Args:
      like: the clustering whose labels are permuted.
      seed: of the permutation.
    """
    labels = np.random.default_rng(arguments.seed("seed", seed)).permutation(like.labels)
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

        v_e = u_e / ||u_e||,  u_e = (mean vector of e's tasks) - (mean of those over experts),  S = V V^T

    Args:
      vectors: {task: float[D]}, the mean embedding of each task's texts; an expert of several tasks has their mean.
      clusters: K, at most the number of experts.
      seed: of the k-means starts.
      centre: whether to subtract the mean over experts before normalising. Hidden states of language models share a
        large common component, so that without centring all cosines are close to 1; the vectors of an encoder that was
        trained for cosine similarity need no centring.
      restarts: as in `mbc`.

    Raises InputError for a task without a vector, and for vectors of different shapes.
    """
    missing = [task for tasks in library.tasks for task in tasks if task not in vectors]
    if missing:
        raise InputError(f"no vector for task {missing[0]!r}; expected one for each task of the library's experts")
    if len(shapes := {np.shape(vectors[task]) for tasks in library.tasks for task in tasks}) > 1:
        raise InputError(f"vectors have shapes {sorted(shapes)}; expected the same shape for all tasks")
    means_ED = np.stack([np.mean([vectors[task] for task in tasks], axis=0) for tasks in library.tasks])
    means_ED = np.float64(means_ED) - (means_ED.mean(axis=0, keepdims=True) if centre else 0)
    unit_ED = np.float32(unit(means_ED))
    return clustered(library.names, unit_ED, unit_ED @ unit_ED.T, clusters, seed, restarts)


def _inertia(points_ED, labels):
    own = (points_ED[labels == label] for label in np.unique(labels))
    return sum(np.sum(np.square(points_nD - points_nD.mean(axis=0, keepdims=True))) for points_nD in own)
