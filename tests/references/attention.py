"""Attention over rows of prefix trees: one query and one head at a time in float64, and with all scores in JAX."""

import jax.numpy as jnp
import numpy as np


def forest(rng, T, largest=120):
    """(positions[T], ends[T]) of trees in depth-first order: a trunk, then subtrees; 7 tokens of padding at the end."""
    positions, ends = np.zeros(T, np.int32), np.zeros(T, np.int32)

    def grow(start, end, depth):
        fork = min(end, start + rng.integers(1, 2 + (end - start) // 2))
        positions[start:fork], ends[start:fork] = depth + np.arange(fork - start), end
        plant(fork, end, depth + fork - start, 1 + (end - start) // 2)

    def plant(start, end, depth, largest):
        while start < end:
            stop = min(end, start + rng.integers(1, 1 + largest))
            grow(start, stop, depth)
            start = stop

    plant(0, T - 7, 0, largest)
    return positions, ends


def rows(seed, B, T):
    """(positions int32[B, T], ends int32[B, T]) of random forests."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.array(field) for field in zip(*(forest(rng, T) for _ in range(B)), strict=True))


def readable(positions_BT, ends_BT, window=None):
    """bool[B, T, S]: whether query i reads key j."""
    positions_BT, ends_BT = np.asarray(positions_BT), np.asarray(ends_BT)
    i, j = np.arange(ends_BT.shape[1])[:, None], np.arange(ends_BT.shape[1])[None, :]
    mask_BTS = (j <= i) & (i < ends_BT[:, None, :])
    if window is not None:
        mask_BTS &= positions_BT[:, :, None] - positions_BT[:, None, :] < int(window)
    return mask_BTS


def attend(q_BTNH, k_BTKH, v_BTKH, positions_BT, ends_BT, window=None, scale=None, softcap=None):
    """float64[B, T, N, H], in loops."""
    q_BTNH, k_BTKH, v_BTKH = (np.float64(a) for a in (q_BTNH, k_BTKH, v_BTKH))
    group = q_BTNH.shape[2] // k_BTKH.shape[2]
    scale = q_BTNH.shape[3] ** -0.5 if scale is None else float(scale)
    mask_BTS = readable(positions_BT, ends_BT, window)
    out_BTNH = np.zeros_like(q_BTNH)
    for b, t, n in np.ndindex(q_BTNH.shape[:3]):
        keys = np.flatnonzero(mask_BTS[b, t])
        if len(keys):
            scores = k_BTKH[b, keys, n // group] @ q_BTNH[b, t, n] * scale
            scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            out_BTNH[b, t, n] = weights / weights.sum() @ v_BTKH[b, keys, n // group]
    return out_BTNH


def with_all_scores(q_BTNH, k_BTKH, v_BTKH, mask_BTS, scale, softcap):
    """The same with one array of scores, in the arrays' dtype, for `jax.grad`."""
    k_BTNH, v_BTNH = (jnp.repeat(x, q_BTNH.shape[2] // x.shape[2], axis=2) for x in (k_BTKH, v_BTKH))
    scores_BNTS = scale * jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH)
    if softcap is not None:
        scores_BNTS = softcap * jnp.tanh(scores_BNTS / softcap)
    mask_BNTS = jnp.array(mask_BTS)[:, None]
    weights_BNTS = jnp.where(mask_BNTS, jnp.exp(scores_BNTS - scores_BNTS.max(axis=-1, keepdims=True)), 0)
    total_BNT = weights_BNTS.sum(axis=-1, keepdims=True)
    return jnp.einsum("bnts,bsnh->btnh", weights_BNTS / jnp.where(total_BNT == 0, 1, total_BNT), v_BTNH)
