"""Clustering in NumPy, float64: the steps as the paper has them, on the matrix X[E, P] itself."""

import numpy as np


def sparse_rows(library, sparsity, sides="ab"):
    """X[E, P]: every expert's factors in a row; the quantile is of its entries at its own rank."""
    rows = []
    for e, info in enumerate(library.infos):
        padded = [np.float64(getattr(lora, side)[:, e]) for lora in library.loras.values() for side in sides]
        own_P = np.concatenate([leaf_LRI[:, : info.rank].ravel() for leaf_LRI in padded])
        row_P = np.concatenate([leaf_LRI.ravel() for leaf_LRI in padded])
        rows.append(np.where(np.abs(row_P) > np.quantile(np.abs(own_P), sparsity), row_P, 0))
    return np.stack(rows)


def similarity(x_EP, components):
    """Truncated SVD, rows of length one, S = cosines."""
    u_EC, s_C, _ = np.linalg.svd(x_EP, full_matrices=False)
    return cosines(u_EC[:, :components] * s_C[None, :components])


def cosines(x_EP, y_NP=None):
    """S[E, N]."""
    y_NP = x_EP if y_NP is None else y_NP
    unit_EP, unit_NP = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x_EP, y_NP))
    return unit_EP @ unit_NP.T


def inertia(x_ED, labels_E):
    """Squared distances of all points from their clusters' means."""
    own = (x_ED[labels_E == label] for label in np.unique(labels_E))
    return sum(np.sum((points_nD - points_nD.mean(axis=0)) ** 2) for points_nD in own)


def silhouette(distance_EE, labels_E):
    """(b - a) / max(a, b) of each expert, 0 for one alone, averaged."""
    scores = []
    for e, label in enumerate(labels_E):
        own = np.flatnonzero((labels_E == label) & (np.arange(len(labels_E)) != e))
        others = [distance_EE[e, labels_E == other].mean() for other in set(labels_E) - {label}]
        a = distance_EE[e, own].mean() if len(own) else 0
        scores.append((min(others) - a) / max(min(others), a) if len(own) else 0)
    return np.mean(scores)


def adjusted_rand(first_E, second_E):
    """Pairs that both put together, beyond those that chance would (Hubert and Arabie, 1985)."""
    pairs = np.triu_indices(len(first_E), 1)
    together, too = ((labels[:, None] == labels[None])[pairs] for labels in (np.asarray(first_E), np.asarray(second_E)))
    both, chance = np.sum(together & too), together.sum() * too.sum() / len(together)
    return (both - chance) / ((together.sum() + too.sum()) / 2 - chance)


def embedding_points(vectors_ED):
    """Mean embeddings, the mean of all taken off, as unit vectors."""
    centred_ED = vectors_ED - vectors_ED.mean(axis=0)
    return centred_ED / np.linalg.norm(centred_ED, axis=1, keepdims=True)


def nearest(similarity_NE, labels_E):
    """The mean similarity of each new expert with the members of each cluster, [N, C]."""
    return np.stack([similarity_NE[:, labels_E == c].mean(axis=1) for c in range(labels_E.max() + 1)], axis=1)


def spearman(x_P, y_P):
    """The correlation of ranks; equal values share the mean of their ranks."""

    def ranks(z_P):
        return np.array([np.mean(np.flatnonzero(np.sort(z_P) == z)) for z in z_P])

    return np.corrcoef(ranks(x_P), ranks(y_P))[0, 1]
