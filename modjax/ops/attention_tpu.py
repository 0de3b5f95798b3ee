"""Attention over rows of prefix trees on a TPU: one Pallas kernel forward and one backward.

Query i reads key j exactly when `j <= i < ends[j]` and, with a window, `positions[i] - positions[j] < window`.

A grid step is one query head of one row. Its queries, keys and values, a few MiB, are whole in VMEM: each is read from
HBM once, during the step before. The kernel loops over pairs of a query block and a key block, and skips the pairs in
which nothing is read. Of the T x T scores, those of one pair exist at a time.

Arrays have tokens on the lanes, [H, T]: a head of width 64 or 80 then fills its tiles, while in [T, H] the rest of 128
lanes would be padding. Scores are [keys, queries], so that maximum and sum over keys go along sublanes, not across
lanes, which costs more.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

BLOCK = 512  # largest number of tokens in a block of queries or keys
LANES = 128
SUBLANES = 16  # of a tile of bfloat16
VMEM = 60 * 2**20  # bytes that a kernel may use: v5p has 64 MiB, v5e and v6e 128
NOTHING, SOME, ALL = range(3)  # what the queries of one block read of the keys of another
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
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """The output, like q_BTNH, and the logarithm of each query's sum of exp(score), float32[B, N, T].

    q_BTNH: float[B, T, N, H]; k_BTKH, v_BTKH: float[B, T, K, H]; positions_BT, ends_BT: int32[B, T].
    A query without keys gives zeros. interpret: run on any device, slowly.
    """
    B, T, N, H = q_BTNH.shape
    trees = _trees(positions_BT, ends_BT, window, scale)
    inputs = [_on_lanes(x_BTNH, trees.length) for x_BTNH in (q_BTNH, k_BTKH, v_BTKH)]
    K, width = inputs[1].shape[1:3]
    query, key, row = _specs(N // K, width, trees.length)
    statistic = pltpu.VMEM((1, trees.block), jnp.float32)
    out_BNHT, lse_BN1T = pl.pallas_call(
        functools.partial(_forward_kernel, softcap=softcap),
        grid=(B, K, N // K),
        in_specs=[trees.specs(), query, key, key],
        out_specs=[query, row],
        out_shape=[_like(inputs[0]), jax.ShapeDtypeStruct((B, N, 1, trees.length), jnp.float32)],
        scratch_shapes=[
            pltpu.VMEM((trees.length, width), k_BTKH.dtype),
            statistic,
            statistic,
            pltpu.VMEM((width, trees.block), jnp.float32),
        ],
        compiler_params=_PARAMS,
        interpret=interpret,
        name="attention_forward",
    )(trees, *inputs)
    return _tokens_first(out_BNHT, T, H), lse_BN1T[:, :, 0, :T]


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
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients (dq_BTNH, dk_BTKH, dv_BTKH) for g_BTNH, that of the output; out_BTNH, lse_BNT: from `forward`."""
    B, T, N, H = q_BTNH.shape
    trees = _trees(positions_BT, ends_BT, window, scale)
    inputs = [_on_lanes(x_BTNH, trees.length) for x_BTNH in (q_BTNH, k_BTKH, v_BTKH, out_BTNH, g_BTNH)]
    lse_BN1T = jnp.pad(lse_BNT[:, :, None, :], ((0, 0), (0, 0), (0, 0), (0, trees.length - T)))
    K, width = inputs[1].shape[1:3]
    query, key, row = _specs(N // K, width, trees.length)
    keys = pltpu.VMEM((trees.length, width), k_BTKH.dtype)
    sums = pltpu.VMEM((width, trees.length), jnp.float32)
    grads = pl.pallas_call(
        functools.partial(_backward_kernel, softcap=softcap),
        grid=(B, K, N // K),
        in_specs=[trees.specs(), query, key, key, query, query, row],
        out_specs=[query, key, key],
        out_shape=[_like(x_BNHT) for x_BNHT in inputs[:3]],
        scratch_shapes=[keys, keys, sums, sums, sums],
        compiler_params=_PARAMS,
        interpret=interpret,
        name="attention_backward",
    )(trees, *inputs, lse_BN1T)
    return tuple(_tokens_first(x_BNHT, T, H) for x_BNHT in grads)


def fits(T: int, H: int, dtype: jnp.dtype) -> bool:
    """Whether the arrays of one head of a row fit into VMEM, in the backward pass, which holds the most.

    Eight inputs and outputs, each twice, as one step is computed while the next is read; keys and values transposed;
    three sums in float32. Scores of a pair of blocks take 8 MiB at most.
    """
    length, width = T + -T % BLOCK, H + -H % SUBLANES
    transposed = 2 * (width + -width % LANES)
    return length * ((16 * width + transposed) * jnp.dtype(dtype).itemsize + 3 * width * 4) + 8 * 2**20 <= VMEM


# The query heads of one key-value head follow each other on one core: they share its transposed keys and sum its
# gradients.
_PARAMS = pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM)


class _Trees(NamedTuple):
    """What the kernels know of the trees in the rows; T is padded to a whole number of blocks."""

    kinds: Any  # int32[B, query blocks, key blocks]: NOTHING, SOME or ALL
    ends: Any  # int32[B, 1, T]
    positions: Any  # int32[B, 1, T]
    scale: Any  # float32[1]
    window: Any  # int32[1], or None

    @property
    def length(self) -> int:
        return self.ends.shape[-1]

    @property
    def block(self) -> int:
        return self.length // self.kinds.shape[-1]

    def specs(self) -> "_Trees":
        def of_row(x, space):
            return pl.BlockSpec((None, *x.shape[1:]), lambda b, k, g: (b, 0, 0), memory_space=space)

        number = pl.BlockSpec(memory_space=pltpu.SMEM)
        return _Trees(
            kinds=of_row(self.kinds, pltpu.SMEM),
            ends=of_row(self.ends, pltpu.VMEM),
            positions=of_row(self.positions, pltpu.VMEM),
            scale=number,
            window=None if self.window is None else number,
        )


def _trees(positions_BT, ends_BT, window, scale) -> _Trees:
    T = ends_BT.shape[1]
    n_blocks = pl.cdiv(T, BLOCK)
    block = pl.cdiv(T, n_blocks * LANES) * LANES
    padding = ((0, 0), (0, n_blocks * block - T))
    positions_BT, ends_BT = jnp.pad(positions_BT, padding), jnp.pad(ends_BT, padding)
    return _Trees(
        kinds=_kinds(positions_BT, ends_BT, window, block),
        ends=ends_BT[:, None, :],
        positions=positions_BT[:, None, :],
        scale=jnp.asarray(scale, jnp.float32)[None],
        window=None if window is None else jnp.asarray(window, jnp.int32)[None],
    )


def _kinds(positions_BT, ends_BT, window, block) -> jax.Array:
    """int32[B, query blocks, key blocks]: NOTHING, SOME or ALL."""
    first = jnp.arange(0, ends_BT.shape[1], block)
    last = first + block - 1
    queries, keys = (slice(None), slice(None), None), (slice(None), None, slice(None))
    some = (first[None][keys] <= last[None][queries]) & (_highest(ends_BT, block)[keys] > first[None][queries])
    everything = (last[None][keys] <= first[None][queries]) & (-_highest(-ends_BT, block)[keys] > last[None][queries])
    if window is not None:
        # Padding reads nothing: its positions do not count.
        lowest = -_highest(jnp.where(ends_BT > 0, -positions_BT, -jnp.iinfo(jnp.int32).max), block)
        highest = _highest(positions_BT, block)
        some &= lowest[queries] - highest[keys] < window
        everything &= highest[queries] - lowest[keys] < window
    return jnp.where(everything, ALL, jnp.where(some, SOME, NOTHING))


def _highest(x_BT, block) -> jax.Array:
    """The highest number of each block, [B, blocks].

    The compiler for TPUs fails on some reshapes to [B, blocks, block].
    """
    return jax.lax.reduce_window(x_BT, jnp.iinfo(jnp.int32).min, jax.lax.max, (1, block), (1, block), "VALID")


def _on_lanes(x_BTNH, length) -> jax.Array:
    """[B, N, H, T], with T padded to the length and H to whole tiles."""
    _, T, _, H = x_BTNH.shape
    padded_BTNH = jnp.pad(x_BTNH, ((0, 0), (0, length - T), (0, 0), (0, -H % SUBLANES)))
    return jnp.transpose(padded_BTNH, (0, 2, 3, 1))


def _tokens_first(x_BNHT, T, H) -> jax.Array:
    """[B, T, N, H], without padding."""
    return jnp.transpose(x_BNHT[:, :, :H, :T], (0, 3, 1, 2))


def _like(x) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _specs(G, H, T):
    """The blocks of a grid step: a query head, its key-value head, and one number for each query."""
    query = pl.BlockSpec((None, None, H, T), lambda b, k, g: (b, k * G + g, 0, 0))
    key = pl.BlockSpec((None, None, H, T), lambda b, k, g: (b, k, 0, 0))
    row = pl.BlockSpec((None, None, 1, T), lambda b, k, g: (b, k * G + g, 0, 0))
    return query, key, row


def _forward_kernel(trees, q_ref, k_ref, v_ref, out_ref, lse_ref, keys_ref, max_ref, sum_ref, weighted_ref, *, softcap):
    block = trees.block

    @pl.when(pl.program_id(2) == 0)
    def _():
        _transpose(k_ref, keys_ref, block)

    @pl.loop(0, trees.kinds.shape[0])
    def _(i):
        queries = _tokens(i, block)
        max_ref[...] = jnp.full_like(max_ref, LOWEST)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        weighted_ref[...] = jnp.zeros_like(weighted_ref)

        def read(j, masked):
            keys = _tokens(j, block)
            scores, _ = _scores(trees, q_ref, keys_ref, i, j, masked, softcap)
            highest = jnp.maximum(max_ref[...], scores.max(axis=0, keepdims=True))
            weights = jnp.exp(scores - highest)
            shrink = jnp.exp(max_ref[...] - highest)
            max_ref[...] = highest
            sum_ref[...] = shrink * sum_ref[...] + weights.sum(axis=0, keepdims=True)
            weighted_ref[...] = shrink * weighted_ref[...] + _dot(v_ref[:, keys], weights.astype(v_ref.dtype))

        _for_key_blocks(trees, i, read)
        total = jnp.where(sum_ref[...] == 0, 1, sum_ref[...])
        out_ref[:, queries] = (weighted_ref[...] / total).astype(out_ref.dtype)
        lse_ref[:, queries] = max_ref[...] + jnp.log(total)


def _backward_kernel(
    trees, q_ref, k_ref, v_ref, out_ref, g_ref, lse_ref, dq_ref, dk_ref, dv_ref,
    keys_ref, values_ref, dq_sum_ref, dk_sum_ref, dv_sum_ref, *, softcap,
):  # fmt: skip
    block = trees.block

    @pl.when(pl.program_id(2) == 0)
    def _():
        _transpose(k_ref, keys_ref, block)
        _transpose(v_ref, values_ref, block)
        dk_sum_ref[...] = jnp.zeros_like(dk_sum_ref)
        dv_sum_ref[...] = jnp.zeros_like(dv_sum_ref)

    dq_sum_ref[...] = jnp.zeros_like(dq_sum_ref)

    @pl.loop(0, trees.kinds.shape[0])
    def _(i):
        queries = _tokens(i, block)
        # The mean of the weights' gradients under the weights.
        products = out_ref[:, queries].astype(jnp.float32) * g_ref[:, queries].astype(jnp.float32)
        mean = products.sum(axis=0, keepdims=True)

        def read(j, masked):
            keys = _tokens(j, block)
            scores, slope = _scores(trees, q_ref, keys_ref, i, j, masked, softcap)
            weights = jnp.exp(scores - lse_ref[:, queries])
            dv_sum_ref[:, keys] += _dot_last(g_ref[:, queries], weights.astype(g_ref.dtype))
            dscores = weights * (_dot(values_ref[keys, :], g_ref[:, queries]) - mean)
            dscores = (dscores if slope is None else dscores * slope).astype(q_ref.dtype)
            dq_sum_ref[:, queries] += _dot(k_ref[:, keys], dscores)
            dk_sum_ref[:, keys] += _dot_last(q_ref[:, queries], dscores)

        _for_key_blocks(trees, i, read)

    dq_ref[...] = (trees.scale[0] * dq_sum_ref[...]).astype(dq_ref.dtype)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        dk_ref[...] = (trees.scale[0] * dk_sum_ref[...]).astype(dk_ref.dtype)
        dv_ref[...] = dv_sum_ref[...].astype(dv_ref.dtype)


def _for_key_blocks(trees, i, read):
    """Calls read(j, masked) for each block j of keys that query block i reads from."""

    @pl.loop(0, i + 1)
    def _(j):
        kind = trees.kinds[i, j]
        pl.when(kind == ALL)(lambda: read(j, masked=False))
        pl.when(kind == SOME)(lambda: read(j, masked=True))


def _scores(trees, q_ref, keys_ref, i, j, masked, softcap):
    """Scores of two blocks, float32[keys, queries], -inf where nothing is read; the slope of the soft cap, or None."""
    queries, keys = _tokens(i, trees.block), _tokens(j, trees.block)
    scores, slope = trees.scale[0] * _dot(keys_ref[keys, :], q_ref[:, queries]), None
    if softcap is not None:
        capped = jnp.tanh(scores / softcap)
        scores, slope = softcap * capped, 1 - capped * capped
    if masked:
        query = i * trees.block + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        key = j * trees.block + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
        mask = (key <= query) & (query < trees.ends[:, keys].T)
        if trees.window is not None:
            mask &= trees.positions[:, queries] - trees.positions[:, keys].T < trees.window[0]
        scores = jnp.where(mask, scores, -jnp.inf)
    return scores, slope


def _tokens(i, block):
    """The tokens of a block."""
    return pl.ds(pl.multiple_of(i * block, block), block)


def _transpose(x_ref, out_ref, block):
    @pl.loop(0, out_ref.shape[0] // block)
    def _(j):
        tokens = _tokens(j, block)
        out_ref[tokens, :] = x_ref[:, tokens].T


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_last(a, b):
    """a b^T."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
