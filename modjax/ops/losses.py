"""Losses, and other readings of logits, that never have the logits of a whole batch in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax


def target_losses(
    logits_of: Callable[[jax.Array], jax.Array],
    hidden_NTD: jax.Array,
    positions_NM: jax.Array,
    labels_NM: jax.Array,
    chunk: int = 64,
) -> jax.Array:
    """Cross-entropy of the label at each of M positions per row, float32[N,M] in nats; see `at_targets`.

    Args:
      logits_of: hidden states [..., D] to float32 logits [..., V].
    """

    def losses_of(hidden_NmD, labels_Nm):
        return optax.softmax_cross_entropy_with_integer_labels(logits_of(hidden_NmD), labels_Nm)

    return at_targets(losses_of, hidden_NTD, positions_NM, labels_NM, chunk)


def at_targets(
    read: Callable[[jax.Array, jax.Array], Any],
    hidden_NTD: jax.Array,
    positions_NM: jax.Array,
    labels_NM: jax.Array,
    chunk: int = 64,
) -> Any:
    """Arrays [N,M] of a function of the hidden state at each of M positions per row, and of its label.

    It is computed for at most `chunk` positions per row at a time. If there are several chunks, they are recomputed in
    the backward pass, so that memory is N * chunk * V numbers for any T and M.

    Args:
      read: (hidden [N,m,D], labels [N,m]) to arrays [N,m].
      hidden_NTD: the decoder's final hidden states.
      positions_NM: int32, the positions to read; padded entries may be any position.
      labels_NM: int32, the token that follows each position.
    """
    hidden_NMD = jnp.take_along_axis(hidden_NTD, positions_NM[..., None], axis=1)
    n_rows, n_targets = labels_NM.shape
    if n_targets <= chunk:
        return read(hidden_NMD, labels_NM)
    size = -(-n_targets // -(-n_targets // chunk))  # equal chunks, with the least padding
    padding = -n_targets % size
    hidden_NMD = jnp.pad(hidden_NMD, ((0, 0), (0, padding), (0, 0)))
    labels_NM = jnp.pad(labels_NM, ((0, 0), (0, padding)))
    hidden_CNmD = hidden_NMD.reshape(n_rows, -1, size, hidden_NMD.shape[-1]).swapaxes(0, 1)
    labels_CNm = labels_NM.reshape(n_rows, -1, size).swapaxes(0, 1)
    found = jax.lax.map(jax.checkpoint(lambda xs: read(*xs)), (hidden_CNmD, labels_CNm))
    return jax.tree.map(lambda part_CNm: part_CNm.swapaxes(0, 1).reshape(n_rows, -1)[:, :n_targets], found)
