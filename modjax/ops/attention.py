"""Causal attention with grouped queries over packed or left-padded rows."""

import jax
import jax.numpy as jnp


def causal_mask(
    q_positions_BT: jax.Array,
    k_positions_BS: jax.Array,
    q_segments_BT: jax.Array,
    k_segments_BS: jax.Array,
    window: int | None = None,
) -> jax.Array:
    """Which keys each query may read: its own nonzero segment, its own position and earlier ones.

    positions: int[B, T] and int[B, S]; segments: likewise, 0 for padding.
    window: how many positions back a query reads, itself included; None for all.
    Result: bool[B, T, S].
    """
    distance_BTS = q_positions_BT[:, :, None] - k_positions_BS[:, None, :]
    same_BTS = q_segments_BT[:, :, None] == k_segments_BS[:, None, :]
    mask_BTS = (distance_BTS >= 0) & same_BTS & (k_segments_BS != 0)[:, None, :]
    return mask_BTS if window is None else mask_BTS & (distance_BTS < window)


def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """softmax(q k^T / sqrt(H)) v, each key-value head serving N / K query heads (Ainslie et al., arXiv:2305.13245).

    q_BTNH: float[B, T, N, H]; k_BSKH, v_BSKH: float[B, S, K, H]; mask_BTS: bool[B, T, S].
    Scores and softmax are float32. A query that may read nothing gets zeros. Result: like q_BTNH.
    """
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H)
    scores_BKGTS = jnp.einsum("btkgh,bskh->bkgts", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32)
    scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS * H**-0.5, jnp.finfo(jnp.float32).min)
    peak_BKGT1 = jax.lax.stop_gradient(scores_BKGTS.max(axis=-1, keepdims=True))
    unnormed_BKGTS = jnp.exp(scores_BKGTS - peak_BKGT1)
    # Dividing after the second product touches T x H numbers a head, not T x S, forward and backward.
    total_BKGT1 = unnormed_BKGTS.sum(axis=-1, keepdims=True)
    out_BKGTH = jnp.einsum("bkgts,bskh->bkgth", unnormed_BKGTS.astype(v_BSKH.dtype), v_BSKH, preferred_element_type=jnp.float32)
    out_BTKGH = jnp.moveaxis(out_BKGTH / total_BKGT1, 3, 1)
    readable_BT = mask_BTS.any(axis=-1)[:, :, None, None, None]
    return jnp.where(readable_BT, out_BTKGH, 0).reshape(B, T, N, H).astype(q_BTNH.dtype)
