"""Attention of decoding: new tokens of several branches of a row read the row's keys and those of their own branch."""

import jax
import jax.numpy as jnp


def attend_branches(
    q_BXNH: jax.Array,
    k_BXKH: jax.Array,
    v_BXKH: jax.Array,
    row: tuple[jax.Array, jax.Array],
    new: tuple[jax.Array, jax.Array],
    masks: tuple[jax.Array, jax.Array],
    scale: float | jax.Array | None = None,
    softcap: float | None = None,
) -> jax.Array:
    """softmax(scale q k^T) v of one new token per branch, over its row, its branch and itself.

    Args:
      q_BXNH, k_BXKH, v_BXKH: float, of the new token of each of X branches per row.
      row: keys and values of each row, float[B,K,S,H] each: read once for all its branches.
      new: keys and values of each branch, float[B,X,K,G,H] each.
      masks: which of these each branch reads, bool[B,X,S] and bool[G].
      scale: by default 1 / sqrt(H). softcap: scores s become softcap tanh(s / softcap) (arXiv:2408.00118, section 2).

    Scores and softmax are float32. Result: like q_BXNH.
    """
    B, X, N, H = q_BXNH.shape
    K = k_BXKH.shape[2]
    # The queries of all branches that share a key-value head are rows (Q = X x N / K) of one matrix product.
    q_BXKRH = q_BXNH.reshape(B, X, K, N // K, H)
    q_BKQH = jnp.moveaxis(q_BXKRH, 1, 2).reshape(B, K, -1, H)
    row_BKQS = jnp.einsum("bkqh,bksh->bkqs", q_BKQH, row[0], preferred_element_type=jnp.float32)
    row_BXKRS = jnp.moveaxis(row_BKQS.reshape(B, K, X, N // K, -1), 1, 2)
    new_BXKRG = jnp.einsum("bxkrh,bxkgh->bxkrg", q_BXKRH, new[0], preferred_element_type=jnp.float32)
    own_BXKR1 = jnp.einsum("bxkrh,bxkh->bxkr", q_BXKRH, k_BXKH, preferred_element_type=jnp.float32)[..., None]
    reads = (masks[0][:, :, None, None], masks[1][None, None, None, None], jnp.ones((1,) * 5, bool))
    weights = _softmax((row_BXKRS, new_BXKRG, own_BXKR1), reads, H**-0.5 if scale is None else scale, softcap)
    row_BXKRS, new_BXKRG, own_BXKR1 = (part.astype(v_BXKH.dtype) for part in weights)
    row_BKQS = jnp.moveaxis(row_BXKRS, 2, 1).reshape(B, K, X * (N // K), -1)
    row_BKQH = jnp.einsum("bkqs,bksh->bkqh", row_BKQS, row[1], preferred_element_type=jnp.float32)
    out_BXKRH = jnp.moveaxis(row_BKQH.reshape(B, K, X, N // K, H), 1, 2)
    out_BXKRH += jnp.einsum("bxkrg,bxkgh->bxkrh", new_BXKRG, new[1], preferred_element_type=jnp.float32)
    out_BXKRH += own_BXKR1.astype(jnp.float32) * v_BXKH[:, :, :, None].astype(jnp.float32)
    return out_BXKRH.reshape(B, X, N, H).astype(q_BXNH.dtype)


def _softmax(parts, reads, scale, softcap):
    """One softmax over the last axes of all parts together, where they are read; float32."""
    lowest = jnp.finfo(jnp.float32).min
    parts = [part * scale for part in parts]
    if softcap is not None:
        parts = [softcap * jnp.tanh(part / softcap) for part in parts]
    parts = [jnp.where(read, part, lowest) for part, read in zip(parts, reads, strict=True)]
    highest = jnp.max(jnp.stack([part.max(axis=-1) for part in parts]), axis=0)[..., None]
    parts = [jnp.exp(part - highest) for part in parts]
    total = sum(part.sum(axis=-1, keepdims=True) for part in parts)
    return [part / total for part in parts]
