"""Model-based clustering (MBC, arXiv 2405.11157, section 3.1): tasks grouped by the similarity of their experts.

The truncated SVD of the matrix X[E, P] of flattened experts is needed only up to the inner products of its
rows, and those come from the Gram matrix G = X X^T[E, E] alone: with G = U diag(sigma^2) U^T, the coordinates of
the experts in the first c components are U_c diag(sigma_c). G is summed site by site, so X, which has 10^7
columns and more, never exists.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.linalg import kmeans, kth_smallest_magnitude


@dataclasses.dataclass(frozen=True)
class Clusters:
    """A partition of experts.

    Attributes:
      labels: int[E], the cluster of each expert; clusters are numbered by their first expert.
      names: {cluster: [expert, ...]}.
      similarity: float32[E, E], cosine similarity of the experts.
      inertia: the k-means objective on the rows of `similarity`.
    """

    labels: np.ndarray
    names: dict[int, list[str]]
    similarity: np.ndarray
    inertia: float

    def groups(self, library: Library) -> dict[str, tuple[str, ...]]:
        """{"cluster 0": tasks of its experts, ...}: what `train_library` takes to train an expert for each."""
        members = {cluster: np.flatnonzero(self.labels == cluster) for cluster in self.names}
        return {
            f"cluster {cluster}": tuple(dict.fromkeys(task for i in ids for task in library.tasks[i]))
            for cluster, ids in members.items()
        }


def mbc(library: Library, clusters: int = 10, sparsity: float = 0.5, components: int = 64, seed: int = 42) -> Clusters:
    """Clusters a library's experts: sparsify, truncate, cosine similarity, k-means on its rows.

    Args:
      clusters: K, the number of clusters, at most the number of experts.
      sparsity: the quantile of its own magnitudes at or below which an expert's entries count as zero.
      components: the rank that X is truncated to; with no more experts than that it is a mere rotation.
      seed: of the k-means starts.
    """
    if not 1 <= clusters <= len(library):
        raise InputError(f"clusters={clusters}: expected 1 to {len(library)}, the number of experts")
    s_EE = similarity(library, sparsity=sparsity, components=components)
    found = _kmeans(s_EE, clusters, jax.random.key(seed))
    labels = _by_first_member(np.asarray(found.labels))
    names = {
        cluster: [library.names[i] for i in np.flatnonzero(labels == cluster)] for cluster in range(labels.max() + 1)
    }
    return Clusters(labels, names, np.asarray(s_EE), float(found.inertia))


def similarity(library: Library, sparsity: float = 0.5, components: int = 64) -> jax.Array:
    """Cosine similarity of the experts' flattened factors after sparsification, float32[E, E]."""
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity}: expected a quantile in [0, 1)")
    own_E, all_E = _entries(library)
    # The index, among an expert's own entries, of the last one that its quantile zeroes.
    quantile_E = np.floor(sparsity * np.maximum(own_E - 1, 0))
    padding_E, quantile_E = (jnp.asarray(n_E, jnp.int32) for n_E in (all_E - own_E, quantile_E))
    return _similarity(library.loras, padding_E, quantile_E, components)


def _entries(library):
    """int[E] each: the entries of an expert's own factors, and those that it has in the library's arrays."""
    own_E, all_E = np.zeros((2, len(library)), int)
    for site, ranks_LE in library.ranks.items():
        a, b = library.loras[site]
        own_E += ranks_LE.sum(axis=0) * (a.shape[3] + b.shape[3])
        all_E += a.shape[0] * library.rank * (a.shape[3] + b.shape[3])
    return own_E, all_E


@functools.partial(jax.jit, static_argnames="components")
def _similarity(loras, padding_E, quantile_E, components):
    blocks = [_rows(leaf) for leaf in jax.tree.leaves(loras)]
    # Padded entries are zeros, hence the smallest: an expert's own k-th entry lies behind them.
    threshold_E = kth_smallest_magnitude(blocks, padding_E + quantile_E)
    gram_EE = sum(_gram(block, threshold_E) for block in blocks)
    return _cosine(_truncate(gram_EE, components))


def _rows(leaf_LERI):
    return jnp.swapaxes(leaf_LERI, 0, 1).reshape(leaf_LERI.shape[1], -1)


def _gram(block_EP, threshold_E):
    kept_EP = jnp.where(jnp.abs(block_EP) > threshold_E[:, None], block_EP, 0)
    return jnp.matmul(kept_EP, kept_EP.T, precision="highest", preferred_element_type=jnp.float32)


def _truncate(gram_EE, components):
    if gram_EE.shape[0] <= components:
        return gram_EE
    variance_E, u_EE = jnp.linalg.eigh(gram_EE)  # rising order
    u_EC, variance_C = u_EE[:, -components:], jnp.maximum(variance_E[-components:], 0)
    return jnp.matmul(u_EC * variance_C[None], u_EC.T, precision="highest")


def _cosine(gram_EE):
    norm_E = jnp.sqrt(jnp.maximum(jnp.diagonal(gram_EE), jnp.finfo(jnp.float32).tiny))
    return gram_EE / (norm_E[:, None] * norm_E[None])


_kmeans = jax.jit(kmeans, static_argnums=1)


def _by_first_member(labels):
    """Renumbers clusters by their first member, so that equal partitions have equal labels."""
    order = {old: new for new, old in enumerate(dict.fromkeys(labels.tolist()))}
    return np.asarray([order[label] for label in labels.tolist()])
