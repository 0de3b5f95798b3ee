"""Figures, intervals and analyses of routing in plain NumPy, one draw, token, layer and site at a time."""

import numpy as np


def figure(tasks, counts):
    """The mean over tasks of sum_i c_i x_i / sum_i c_i y_i, for [(x_n, y_n)] and the draws [c_n]."""
    return np.mean([(c_n * x_n).sum() / (c_n * y_n).sum() for (x_n, y_n), c_n in zip(tasks, counts, strict=True)])


def percentile(values, share):
    """The value that `share` of the sorted values lie below, linear between neighbours."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def entropy(weights_E):
    """Nats, of weights divided by the sum of their sizes."""
    share_E = np.abs(weights_E) / np.abs(weights_E).sum()
    return -sum(share * np.log(share) for share in share_E if share > 0)


def analysis(weights_nTE, owners):
    """(use_E, entropy, share of tokens right, share of examples right) at one layer and site, from [T,E] each."""
    tokens = [
        (weights_E, owner) for weights_TE, owner in zip(weights_nTE, owners, strict=True) for weights_E in weights_TE
    ]
    use_E = np.mean([weights_E for weights_E, _ in tokens], axis=0)
    right = [weights_E.argmax() == owner for weights_E, owner in tokens if owner is not None]
    pooled = [
        weights_TE.sum(axis=0).argmax() == owner
        for weights_TE, owner in zip(weights_nTE, owners, strict=True)
        if owner is not None
    ]
    return use_E, np.mean([entropy(weights_E) for weights_E, _ in tokens]), np.mean(right), np.mean(pooled)
