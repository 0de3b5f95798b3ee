"""A partition of experts into clusters, and the similarity it is based on."""

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.files import is_text, is_whole, list_of, read_json_object
from modjax.ops.kmeans import kmeans

Array = np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True)
class Clusters:
    """A partition of experts.

    Attributes:
      labels: int[E], the cluster of each expert; clusters are numbered by their first expert.
      names: {cluster: [expert, ...]}.
      similarity: float32[E, E], cosine similarity of the experts, or of the vectors clustered instead.
      inertia: the k-means objective: the sum of squared distances of the points from the means of their clusters.
    """

    labels: np.ndarray
    names: dict[int, list[str]]
    similarity: np.ndarray
    inertia: float

    @property
    def experts(self) -> tuple[str, ...]:
        """The names of all experts in the order of `labels`."""
        rest = {cluster: iter(names) for cluster, names in self.names.items()}
        return tuple(next(rest[label]) for label in self.labels.tolist())

    def groups(self, library: Library) -> dict[str, tuple[str, ...]]:
        """{"cluster 0": tasks of its experts, ...}; as `groups` of `train_library` it gives one expert per cluster."""
        members = {cluster: np.flatnonzero(self.labels == cluster) for cluster in self.names}
        return {
            f"cluster {cluster}": tuple(dict.fromkeys(task for i in ids for task in library.tasks[i]))
            for cluster, ids in members.items()
        }

    @staticmethod
    def of(experts: Sequence[str], labels: Sequence[int] | Array, similarity_EE: Array, inertia: float) -> "Clusters":
        """The partition with these labels, renumbered so that equal partitions have equal labels."""
        order = {old: new for new, old in enumerate(dict.fromkeys(np.asarray(labels).tolist()))}
        labels = np.asarray([order[label] for label in np.asarray(labels).tolist()])
        names = {cluster: [experts[i] for i in np.flatnonzero(labels == cluster)] for cluster in order.values()}
        return Clusters(labels, names, np.asarray(similarity_EE, np.float32), float(inertia))

    def as_json(self, library: Library) -> dict[str, Any]:
        """The content of clusters.json without measures: the keys that `load` reads, and `groups` to train on."""
        return {
            "groups": self.groups(library),
            "experts": list(self.experts),
            "labels": self.labels.tolist(),
            "inertia": self.inertia,
            "similarity": self.similarity.round(4).tolist(),
        }

    @staticmethod
    def load(path: str | os.PathLike) -> "Clusters":
        """Reads a clusters.json as `modjax cluster` writes it. Raises InputError naming the key for other content."""
        found = read_json_object(path)
        experts, labels, matrix = (found.get(key) for key in ("experts", "labels", "similarity"))
        if not (_is_names(experts) and _is_labels(labels) and experts and len(experts) == len(labels)):
            raise InputError(
                f"{path}: 'experts' and 'labels' do not fit; expected a list of names, and a list of whole numbers, "
                "one per expert"
            )
        try:
            similarity_EE, inertia = np.asarray(matrix, np.float32), float(found.get("inertia"))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: 'similarity' and 'inertia' are not numbers; expected a matrix and one number"
            ) from error
        if similarity_EE.shape != (len(experts), len(experts)):
            raise InputError(
                f"{path}: 'similarity' has shape {similarity_EE.shape}; expected ({len(experts)}, {len(experts)}), one "
                "row and one column per expert"
            )
        return Clusters.of(experts, labels, similarity_EE, inertia)


_is_names, _is_labels = list_of(is_text), list_of(is_whole)


def clustered(
    experts: Sequence[str], points_ED: Array, similarity_EE: Array, clusters: int, seed: int, restarts: int
) -> Clusters:
    """k-means on float32[E, D]; warns if it finds fewer clusters, as where fewer points differ.

    Raises InputError unless there are 1 to E clusters and at least one restart.
    """
    clusters = checked_clusters(clusters, len(experts))
    seed, restarts = arguments.seed("seed", seed), arguments.whole("restarts", restarts, least=1)
    found = _kmeans(jnp.asarray(points_ED), clusters, jax.random.key(seed), restarts)
    made = Clusters.of(experts, found.labels, similarity_EE, found.inertia)
    if len(made.names) < clusters:
        warnings.warn(f"clusters={clusters}: found only {len(made.names)}, as some experts are alike", stacklevel=3)
    return made


def checked_clusters(clusters: int, experts: int) -> int:
    """The number of clusters. Raises InputError unless it is from 1 to the number of experts."""
    found = arguments.whole("clusters", clusters)
    if not 1 <= found <= experts:
        raise arguments.refused("clusters", clusters, f"1 to {experts}, the number of experts")
    return found


_kmeans = jax.jit(kmeans, static_argnums=(1, 3))
