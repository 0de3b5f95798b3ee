"""Attention over rows of prefix trees, one query and one head at a time, in float64."""

import numpy as np


def readable(positions, ends, window=None):
    """bool[T, T] of one row: whether query i reads key j."""
    T = len(ends)
    reads = np.zeros((T, T), bool)
    for i, j in np.ndindex(T, T):
        near = window is None or positions[i] - positions[j] < window
        reads[i, j] = j <= i < ends[j] and near
    return reads


def attend(q_BTNH, k_BTKH, v_BTKH, positions_BT, ends_BT, window=None, scale=None, softcap=None):
    q_BTNH, k_BTKH, v_BTKH = (np.float64(a) for a in (q_BTNH, k_BTKH, v_BTKH))
    group = q_BTNH.shape[2] // k_BTKH.shape[2]
    scale = q_BTNH.shape[3] ** -0.5 if scale is None else float(scale)
    out_BTNH = np.zeros_like(q_BTNH)
    for b in range(len(q_BTNH)):
        reads = readable(np.asarray(positions_BT[b]), np.asarray(ends_BT[b]), window)
        for t, n in np.ndindex(q_BTNH.shape[1:3]):
            keys = np.flatnonzero(reads[t])
            if len(keys):
                scores = k_BTKH[b, keys, n // group] @ q_BTNH[b, t, n] * scale
                scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max())
                out_BTNH[b, t, n] = weights / weights.sum() @ v_BTKH[b, keys, n // group]
    return out_BTNH
