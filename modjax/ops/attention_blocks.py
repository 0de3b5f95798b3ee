"""Attention over rows of prefix trees in XLA, block by block: a forward and a backward pass.

Query i reads key j exactly when `j <= i < ends[j]` and, with a window, `positions[i] - positions[j] < window`.

The queries of a row and its keys are cut into blocks. For each block of queries, a loop goes over those blocks of keys
in which something is read, with a running softmax (Milakov and Gimelshein, arXiv:1805.02867). Of the T x T scores,
those of one pair of blocks exist at a time; the backward pass computes them again from the logarithm of each query's
sum of exp(score) (Dao et al., arXiv:2205.14135).

Query heads that share a key-value head become columns of one matrix product: Q = tokens x N / K. Scores are [S, Q], so
that the maximum and sum over keys add whole vectors, and the products need no transposed copies of scores.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LOWEST = -1e30  # where the running maximum starts: finite, so that exp(-inf - LOWEST) is 0 and not NaN


def forward(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    positions_BT: jax.Array,
    ends_BT: jax.Array,
    window: int | jax.Array | None,
    scale: float | jax.Array,
    softcap: float | None,
    largest: int = 64,
) -> tuple[jax.Array, jax.Array]:
    """The output, like q_BTNH, and the logarithm of each query's sum of exp(score), float32[B, N, T].

    q_BTNH: float[B, T, N, H]; k_BTKH, v_BTKH: float[B, T, K, H]; positions_BT, ends_BT: int32[B, T].
    A query without keys gives zeros. largest: number of tokens in a block, at most. A pair of blocks is skipped if
    none of the B rows reads anything in it.
    """
    blocks = _Blocks.of(q_BTNH, k_BTKH, positions_BT, ends_BT, window, largest)
    q_BKHQ, k_BKTH, v_BKTH = blocks.queries(q_BTNH), blocks.keys(k_BTKH), blocks.keys(v_BTKH)

    def of_queries(_, i):
        block_BKHQ = blocks.query_block(q_BKHQ, i)

        def add(j, running):
            max_BK1Q, sum_BK1Q, out_BKHQ = running
            scores_BKSQ, _ = _scores(block_BKHQ, blocks.key_block(k_BKTH, j), blocks.reads(i, j), scale, softcap)
            new_BK1Q = jnp.maximum(max_BK1Q, scores_BKSQ.max(axis=2, keepdims=True))
            weights_BKSQ, shrink_BK1Q = jnp.exp(scores_BKSQ - new_BK1Q), jnp.exp(max_BK1Q - new_BK1Q)
            sum_BK1Q = shrink_BK1Q * sum_BK1Q + weights_BKSQ.sum(axis=2, keepdims=True)
            added_BKHQ = _dot("bksh,bksq->bkhq", blocks.key_block(v_BKTH, j), weights_BKSQ.astype(v_BTKH.dtype))
            return new_BK1Q, sum_BK1Q, shrink_BK1Q * out_BKHQ + added_BKHQ

        none_BKHQ = jnp.zeros(block_BKHQ.shape, jnp.float32)
        none_BK1Q = none_BKHQ[:, :, :1]
        max_BK1Q, sum_BK1Q, out_BKHQ = blocks.over_keys(i, add, (none_BK1Q + LOWEST, none_BK1Q, none_BKHQ))
        sum_BK1Q = jnp.where(sum_BK1Q == 0, 1, sum_BK1Q)
        return None, ((out_BKHQ / sum_BK1Q).astype(q_BTNH.dtype), max_BK1Q + jnp.log(sum_BK1Q))

    _, (out_IBKHQ, lse_IBK1Q) = blocks.over_queries(of_queries, None)
    return blocks.tokens(out_IBKHQ), blocks.tokens(lse_IBK1Q)[..., 0].swapaxes(1, 2)


def backward(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    positions_BT: jax.Array,
    ends_BT: jax.Array,
    window: int | jax.Array | None,
    scale: float | jax.Array,
    softcap: float | None,
    out_BTNH: jax.Array,
    lse_BNT: jax.Array,
    g_BTNH: jax.Array,
    largest: int = 64,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients (dq_BTNH, dk_BTKH, dv_BTKH) for g_BTNH, that of the output; out_BTNH, lse_BNT: from `forward`."""
    blocks = _Blocks.of(q_BTNH, k_BTKH, positions_BT, ends_BT, window, largest)
    # The gradient of a softmax subtracts its mean under the weights: here, from the output that they gave.
    mean_BTN = jnp.sum(out_BTNH.astype(jnp.float32) * g_BTNH.astype(jnp.float32), axis=-1)
    wide_BKHQ = [blocks.queries(x_BTNH) for x_BTNH in (q_BTNH, g_BTNH)]
    flat_BK1Q = [blocks.queries(x_BTN[..., None]) for x_BTN in (lse_BNT.swapaxes(1, 2), mean_BTN)]
    k_BKTH, v_BKTH = blocks.keys(k_BTKH), blocks.keys(v_BTKH)

    def of_queries(sums, i):
        q_BKHQ, g_BKHQ, lse_BK1Q, mean_BK1Q = (blocks.query_block(x, i) for x in (*wide_BKHQ, *flat_BK1Q))

        def add(j, sums):
            dq_BKHQ, (dk_BKTH, dv_BKTH) = sums
            k_BKSH, v_BKSH = blocks.key_block(k_BKTH, j), blocks.key_block(v_BKTH, j)
            scores_BKSQ, slope = _scores(q_BKHQ, k_BKSH, blocks.reads(i, j), scale, softcap)
            weights_BKSQ = jnp.exp(scores_BKSQ - lse_BK1Q)
            dv_BKSH = _dot("bksq,bkhq->bksh", weights_BKSQ.astype(g_BTNH.dtype), g_BKHQ)
            dweights_BKSQ = _dot("bksh,bkhq->bksq", v_BKSH, g_BKHQ)
            dscores_BKSQ = (weights_BKSQ * (dweights_BKSQ - mean_BK1Q) * slope).astype(q_BTNH.dtype)
            dk_BKSH = _dot("bksq,bkhq->bksh", dscores_BKSQ, q_BKHQ)
            dq_BKHQ = dq_BKHQ + _dot("bksh,bksq->bkhq", k_BKSH, dscores_BKSQ)
            return dq_BKHQ, (blocks.added(dk_BKTH, dk_BKSH, j), blocks.added(dv_BKTH, dv_BKSH, j))

        dq_BKHQ, sums = blocks.over_keys(i, add, (jnp.zeros(q_BKHQ.shape, jnp.float32), sums))
        return sums, dq_BKHQ.astype(q_BTNH.dtype)

    none_BKTH = jnp.zeros(k_BKTH.shape, jnp.float32)
    sums, dq_IBKHQ = blocks.over_queries(of_queries, (none_BKTH, none_BKTH))
    dk_BTKH, dv_BTKH = (x_BKTH[:, :, : blocks.T].swapaxes(1, 2).astype(k_BTKH.dtype) for x_BKTH in sums)
    return blocks.tokens(dq_IBKHQ), dk_BTKH, dv_BTKH


class _Blocks(NamedTuple):
    """Rows cut into blocks of equal size, the last one padded, and the pairs of blocks in which something is read."""

    T: int
    K: int
    G: int  # query heads that share a key-value head
    size: int  # tokens of a block
    n: int  # blocks of a row
    positions_BT: jax.Array
    ends_BT: jax.Array
    window: int | jax.Array | None
    order_IJ: jax.Array  # int32: for each block of queries, the blocks of keys, those that it reads first
    count_I: jax.Array  # int32: the number of blocks that it reads

    @classmethod
    def of(cls, q_BTNH, k_BTKH, positions_BT, ends_BT, window, largest) -> "_Blocks":
        T, K = k_BTKH.shape[1:3]
        n = -(-T // largest)
        size = -(-T // n)
        positions_BT, ends_BT = (jnp.pad(x_BT, ((0, 0), (0, n * size - T))) for x_BT in (positions_BT, ends_BT))
        read_IJ = _read(positions_BT.reshape(-1, n, size), ends_BT.reshape(-1, n, size), window)
        order_IJ = jnp.argsort(~read_IJ, axis=1, stable=True)
        G = q_BTNH.shape[2] // K
        return cls(T, K, G, size, n, positions_BT, ends_BT, window, order_IJ, read_IJ.sum(axis=1))

    def queries(self, x_BTNH) -> jax.Array:
        """[B, K, H, Q] of whole rows, padded."""
        B, H = x_BTNH.shape[0], x_BTNH.shape[3]
        x_BTKGH = self.padded(x_BTNH).reshape(B, -1, self.K, self.G, H)
        return x_BTKGH.transpose(0, 2, 4, 1, 3).reshape(B, self.K, H, -1)

    def tokens(self, x_IBKHQ) -> jax.Array:
        """[B, T, N, H] from blocks of queries."""
        B, H = x_IBKHQ.shape[1], x_IBKHQ.shape[3]
        x_IBKHTG = x_IBKHQ.reshape(self.n, B, self.K, H, self.size, self.G)
        return x_IBKHTG.transpose(1, 0, 4, 2, 5, 3).reshape(B, -1, self.K * self.G, H)[:, : self.T]

    def keys(self, x_BTKH) -> jax.Array:
        """[B, K, T, H], padded."""
        return self.padded(x_BTKH).swapaxes(1, 2)

    def padded(self, x_BTNH) -> jax.Array:
        return jnp.pad(x_BTNH, ((0, 0), (0, self.n * self.size - self.T), (0, 0), (0, 0)))

    def query_block(self, x_BKHQ, i) -> jax.Array:
        return _block(x_BKHQ, i, self.size * self.G, axis=3)

    def key_block(self, x_BKTH, j) -> jax.Array:
        return _block(x_BKTH, j, self.size, axis=2)

    def added(self, x_BKTH, y_BKSH, j) -> jax.Array:
        """x with y added to block j of keys."""
        return jax.lax.dynamic_update_slice_in_dim(x_BKTH, self.key_block(x_BKTH, j) + y_BKSH, j * self.size, axis=2)

    def reads(self, i, j) -> jax.Array:
        """bool[B, 1, S, Q]: the keys of block j that each query of block i reads."""
        tokens = jnp.arange(self.size)
        key_S1, query_Q = (j * self.size + tokens)[:, None], jnp.repeat(i * self.size + tokens, self.G)
        ends_BS1 = _block(self.ends_BT, j, self.size, axis=1)[:, :, None]
        mask_BSQ = (key_S1 <= query_Q[None])[None] & (query_Q[None, None] < ends_BS1)
        if self.window is not None:
            key_BS, query_BT = (_block(self.positions_BT, n, self.size, axis=1) for n in (j, i))
            mask_BSQ &= jnp.repeat(query_BT, self.G, axis=1)[:, None, :] - key_BS[:, :, None] < self.window
        return mask_BSQ[:, None]

    def over_queries(self, step: Callable, carry: Any) -> tuple[Any, Any]:
        """step(carry, i) -> (carry, results) for each block i of queries: the last carry, and the results stacked."""
        if self.n > 1:
            return jax.lax.scan(step, carry, jnp.arange(self.n))
        carry, results = step(carry, 0)
        return carry, jax.tree.map(lambda x: x[None], results)

    def over_keys(self, i, step: Callable, carry: Any) -> Any:
        """The carry after step(j, carry) for each block j of keys that block i of queries reads."""
        if self.n > 1:
            return jax.lax.fori_loop(0, self.count_I[i], lambda n, carry: step(self.order_IJ[i, n], carry), carry)
        return step(0, carry)


def _read(positions_BIS, ends_BIS, window) -> jax.Array:
    """bool[I, J]: the pairs of a block of queries and one of keys in which, as far as their extremes tell, something is
    read in a row."""
    n, size = ends_BIS.shape[1:]
    first_I1 = (jnp.arange(n) * size)[:, None]
    read_BIJ = jnp.tri(n, dtype=bool)[None] & (ends_BIS.max(axis=2)[:, None, :] > first_I1[None])
    if window is not None:
        # Padding reads nothing: its positions do not count.
        nearest_BI = jnp.where(ends_BIS > 0, positions_BIS, jnp.iinfo(jnp.int32).max).min(axis=2)
        read_BIJ &= nearest_BI[:, :, None] - positions_BIS.max(axis=2)[:, None, :] < window
    return read_BIJ.any(axis=0)


def _scores(q_BKHQ, k_BKSH, reads_B1SQ, scale, softcap) -> tuple[jax.Array, float | jax.Array]:
    """Scores, float32[B, K, S, Q], -inf for keys that are not read; and their derivative by the product of q and k."""
    scores_BKSQ, slope = _dot("bksh,bkhq->bksq", k_BKSH, q_BKHQ) * scale, scale
    if softcap is not None:
        tanh_BKSQ = jnp.tanh(scores_BKSQ / softcap)
        scores_BKSQ, slope = softcap * tanh_BKSQ, scale * (1 - jnp.square(tanh_BKSQ))
    return jnp.where(reads_B1SQ, scores_BKSQ, -jnp.inf), slope


def _dot(formula: str, x, y) -> jax.Array:
    return jnp.einsum(formula, x, y, preferred_element_type=jnp.float32)


def _block(x, i, size, axis) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, i * size, size, axis)


def by_row(run: Callable, largest: int = 64) -> Callable:
    """A pass that goes through the rows one after another, each of which then skips blocks of its own.

    On a CPU, where a product of one pair of blocks occupies all cores, this is faster than all rows at once.
    """

    def run_by_row(q_BTNH, k_BTKH, v_BTKH, positions_BT, ends_BT, window, scale, softcap, *others):
        rows = (q_BTNH, k_BTKH, v_BTKH, positions_BT, ends_BT, *others)

        def of(rows):
            return run(*rows[:5], window, scale, softcap, *rows[5:], largest=largest)

        def of_one(row):
            return jax.tree.map(lambda x: x[0], of([x[None] for x in row]))

        return of(rows) if len(q_BTNH) == 1 or q_BTNH.shape[1] <= largest else jax.lax.map(of_one, rows)

    return run_by_row
