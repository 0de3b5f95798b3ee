"""Attention over rows of prefix trees on a TPU: one Pallas kernel forward and one backward, for `ops.attention`.

Query i reads key j exactly when `j <= i < ends[j]` and, with a window, `positions[i] - positions[j] < window`.

A grid step is one query head of one row. Its queries, keys and values, a few MiB, are whole in VMEM: each is read from
HBM once, during the step before. The kernel loops over pairs of a query block and a key block, and leaves out pairs
in which nothing is read. Of the T x T scores, those of one pair exist at a time.

Arrays have tokens on the lanes, [H, T]: a head of width 64 or 80 fills its tiles, where in [T, H] the rest of 128 lanes
would be padding. Scores are [keys, queries]: the maximum and sum over keys then go along sublanes, which is cheaper
than across lanes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

BLOCK = 512  # tokens of a query block and of a key block, at most
LANES = 128
SUBLANES = 16  # of a tile of bfloat16
VMEM = 48 * 2**20  # bytes that a kernel may use; v5p has 64 MiB, v5e and v6e have 128
NOTHING, SOME, ALL = range(3)  # how much of a key block the queries of a query block read
LOWEST = -1e30  # the first maximum: below all scores, but finite, so that exp(-inf - LOWEST) is 0


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
    """Attention, like q_BTNH, and the log of each query's sum of exponentials, float32[B, N, T].

    q_BTNH: float[B, T, N, H]; k_BTKH, v_BTKH: float[B, T, K, H]; positions_BT, ends_BT: int32[B, T].
    A query without keys gives zeros. interpret: runs on any device, slowly.
    """
    B, T, N, H = q_BTNH.shape
    places = _places(positions_BT, ends_BT, window, scale)
    length, block = places.ends.shape[1], places.block
    arrays = [_lanes(x_BTNH, length) for x_BTNH in (q_BTNH, k_BTKH, v_BTKH)]
    K, H_padded = arrays[1].shape[1:3]
    query, key, row = _specs(N // K, H_padded, length)
    out_BNHT, lse_BN1T = pl.pallas_call(
        functools.partial(_forward_kernel, softcap=softcap, windowed=window is not None),
        grid=(B, K, N // K),
        in_specs=[*places.specs(), query, key, key],
        out_specs=[query, row],
        out_shape=[
            jax.ShapeDtypeStruct(arrays[0].shape, q_BTNH.dtype),
            jax.ShapeDtypeStruct((B, N, 1, length), jnp.float32),
        ],
        scratch_shapes=[
            pltpu.VMEM((length, H_padded), k_BTKH.dtype),
            pltpu.VMEM((1, block), jnp.float32),
            pltpu.VMEM((1, block), jnp.float32),
            pltpu.VMEM((H_padded, block), jnp.float32),
        ],
        compiler_params=_params(),
        interpret=interpret,
        name="attention_forward",
    )(*places.arrays(), *arrays)
    return _tokens(out_BNHT, T, H), lse_BN1T[:, :, 0, :T]


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
    """Gradients (dq_BTNH, dk_BTKH, dv_BTKH) from that of the output, g_BTNH; out_BTNH, lse_BNT: as `forward` gave."""
    B, T, N, H = q_BTNH.shape
    places = _places(positions_BT, ends_BT, window, scale)
    length = places.ends.shape[1]
    arrays = [_lanes(x_BTNH, length) for x_BTNH in (q_BTNH, k_BTKH, v_BTKH, out_BTNH, g_BTNH)]
    lse_BN1T = jnp.pad(lse_BNT, ((0, 0), (0, 0), (0, length - T)))[:, :, None]
    K, H_padded = arrays[1].shape[1:3]
    query, key, row = _specs(N // K, H_padded, length)
    like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays[:3]]
    keys = pltpu.VMEM((length, H_padded), k_BTKH.dtype)
    sums = pltpu.VMEM((H_padded, length), jnp.float32)
    grads = pl.pallas_call(
        functools.partial(_backward_kernel, softcap=softcap, windowed=window is not None),
        grid=(B, K, N // K),
        in_specs=[*places.specs(), query, key, key, query, query, row],
        out_specs=[query, key, key],
        out_shape=like,
        scratch_shapes=[keys, keys, pltpu.VMEM((1, length), jnp.float32), sums, sums, sums],
        compiler_params=_params(),
        interpret=interpret,
        name="attention_backward",
    )(*places.arrays(), *arrays, lse_BN1T)
    return tuple(_tokens(x_BNHT, T, H) for x_BNHT in grads)


class _Places(NamedTuple):
    """What the kernels read of a row's trees: kinds of pairs of blocks, ends, positions, window, scale."""

    kinds: jax.Array  # int32[B, query blocks, key blocks]: NOTHING, SOME or ALL
    window: jax.Array  # int32[1]
    scale: jax.Array  # float32[1]
    ends: jax.Array  # int32[B, T, 1]
    key_positions: jax.Array  # int32[B, T, 1]
    query_positions: jax.Array  # int32[B, 1, T]
    block: int

    def arrays(self):
        return self[:-1]

    def specs(self):
        def whole(x):
            return pl.BlockSpec((None, *x.shape[1:]), lambda b, k, g: (b, 0, 0))

        number = pl.BlockSpec(memory_space=pltpu.SMEM)
        kinds = pl.BlockSpec((None, *self.kinds.shape[1:]), lambda b, k, g: (b, 0, 0), memory_space=pltpu.SMEM)
        return [kinds, number, number, *(whole(x) for x in (self.ends, self.key_positions, self.query_positions))]


def _places(positions_BT, ends_BT, window, scale) -> _Places:
    T = ends_BT.shape[1]
    block = min(BLOCK, T + -T % LANES)
    ends_BT, positions_BT = (jnp.pad(x, ((0, 0), (0, -T % block))) for x in (ends_BT, positions_BT))
    return _Places(
        kinds=_kinds(positions_BT, ends_BT, window, block),
        window=jnp.array([0 if window is None else window], jnp.int32),
        scale=jnp.array([scale], jnp.float32),
        ends=ends_BT[:, :, None],
        key_positions=positions_BT[:, :, None],
        query_positions=positions_BT[:, None, :],
        block=block,
    )


def _kinds(positions_BT, ends_BT, window, block) -> jax.Array:
    """int32[B, query blocks, key blocks]: NOTHING if no query of a block reads a key of the other, ALL, or SOME."""
    ends, positions = (x.reshape(x.shape[0], -1, block) for x in (ends_BT, positions_BT))
    first = jnp.arange(ends.shape[1]) * block
    last = first + block - 1
    some = (first[None, None, :] <= last[None, :, None]) & (ends.max(-1)[:, None, :] > first[None, :, None])
    full = (last[None, None, :] <= first[None, :, None]) & (ends.min(-1)[:, None, :] > last[None, :, None])
    if window is not None:
        some &= positions.min(-1)[:, :, None] - positions.max(-1)[:, None, :] < window
        full &= positions.max(-1)[:, :, None] - positions.min(-1)[:, None, :] < window
    return jnp.where(full, ALL, jnp.where(some, SOME, NOTHING)).astype(jnp.int32)


def _lanes(x_BTNH, length) -> jax.Array:
    """[B, N, H, T], with T padded to a length and H to whole tiles."""
    _, T, _, H = x_BTNH.shape
    padded = jnp.pad(x_BTNH, ((0, 0), (0, length - T), (0, 0), (0, -H % SUBLANES)))
    return jnp.transpose(padded, (0, 2, 3, 1))


def _tokens(x_BNHT, T, H) -> jax.Array:
    """[B, T, N, H], without padding."""
    return jnp.transpose(x_BNHT[:, :, :H, :T], (0, 3, 1, 2))


def _specs(G, H, T):
    """Blocks of a grid step: a query head, its key-value head, and a float32 row of the query head."""
    query = pl.BlockSpec((None, None, H, T), lambda b, k, g: (b, k * G + g, 0, 0))
    key = pl.BlockSpec((None, None, H, T), lambda b, k, g: (b, k, 0, 0))
    row = pl.BlockSpec((None, None, 1, T), lambda b, k, g: (b, k * G + g, 0, 0))
    return query, key, row


def _params():
    # The query heads of one key-value head go one after another: they share its keys in scratch and sum its gradients.
    return pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=VMEM)


def _forward_kernel(
    kinds_ref,
    window_ref,
    scale_ref,
    ends_ref,
    key_positions_ref,
    query_positions_ref,
    q_ref,
    k_ref,
    v_ref,
    out_ref,
    lse_ref,
    keys_ref,
    max_ref,
    sum_ref,
    acc_ref,
    *,
    softcap,
    windowed,
):
    block = max_ref.shape[1]

    @pl.when(pl.program_id(2) == 0)
    def _():
        _transpose(k_ref, keys_ref, block)

    @pl.loop(0, kinds_ref.shape[0])
    def _(i):
        queries = _block(i, block)
        max_ref[...] = jnp.full_like(max_ref, LOWEST)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        acc_ref[...] = jnp.zeros_like(acc_ref)

        def read(j, masked):
            keys = _block(j, block)
            scores = _dot(keys_ref[keys, :], q_ref[:, queries]) * scale_ref[0]
            if softcap is not None:
                scores = softcap * jnp.tanh(scores / softcap)
            if masked:
                mask = _mask(i, j, block, ends_ref)
                if windowed:
                    mask &= query_positions_ref[:, queries] - key_positions_ref[keys, :] < window_ref[0]
                scores = jnp.where(mask, scores, -jnp.inf)
            highest = jnp.maximum(max_ref[...], scores.max(axis=0, keepdims=True))
            weights = jnp.exp(scores - highest)
            shrink = jnp.exp(max_ref[...] - highest)
            max_ref[...] = highest
            sum_ref[...] = shrink * sum_ref[...] + weights.sum(axis=0, keepdims=True)
            acc_ref[...] = shrink * acc_ref[...] + _dot(v_ref[:, keys], weights.astype(v_ref.dtype))

        _each_key_block(kinds_ref, i, read)
        total = sum_ref[...]
        empty = total == 0
        out_ref[:, queries] = (acc_ref[...] / jnp.where(empty, 1, total)).astype(out_ref.dtype)
        lse_ref[:, queries] = max_ref[...] + jnp.log(jnp.where(empty, 1, total))


def _backward_kernel(
    kinds_ref,
    window_ref,
    scale_ref,
    ends_ref,
    key_positions_ref,
    query_positions_ref,
    q_ref,
    k_ref,
    v_ref,
    out_ref,
    g_ref,
    lse_ref,
    dq_ref,
    dk_ref,
    dv_ref,
    keys_ref,
    values_ref,
    delta_ref,
    dq_sum_ref,
    dk_sum_ref,
    dv_sum_ref,
    *,
    softcap,
    windowed,
):
    n_blocks = kinds_ref.shape[0]
    block = lse_ref.shape[1] // n_blocks

    @pl.when(pl.program_id(2) == 0)
    def _():
        _transpose(k_ref, keys_ref, block)
        _transpose(v_ref, values_ref, block)
        dk_sum_ref[...] = jnp.zeros_like(dk_sum_ref)
        dv_sum_ref[...] = jnp.zeros_like(dv_sum_ref)

    dq_sum_ref[...] = jnp.zeros_like(dq_sum_ref)

    @pl.loop(0, n_blocks)
    def _(i):
        queries = _block(i, block)
        # The gradient of a softmax subtracts its mean under the weights: here, from the output that they gave.
        product = out_ref[:, queries].astype(jnp.float32) * g_ref[:, queries].astype(jnp.float32)
        delta_ref[:, queries] = product.sum(axis=0, keepdims=True)

        def read(j, masked):
            keys = _block(j, block)
            scores = _dot(keys_ref[keys, :], q_ref[:, queries]) * scale_ref[0]
            slope = scale_ref[0]
            if softcap is not None:
                tanh = jnp.tanh(scores / softcap)
                scores, slope = softcap * tanh, slope * (1 - tanh * tanh)
            if masked:
                mask = _mask(i, j, block, ends_ref)
                if windowed:
                    mask &= query_positions_ref[:, queries] - key_positions_ref[keys, :] < window_ref[0]
                scores = jnp.where(mask, scores, -jnp.inf)
            weights = jnp.exp(scores - lse_ref[:, queries])
            dv_sum_ref[:, keys] += _dot_last(g_ref[:, queries], weights.astype(g_ref.dtype))
            dweights = _dot(values_ref[keys, :], g_ref[:, queries])
            dscores = (weights * (dweights - delta_ref[:, queries]) * slope).astype(q_ref.dtype)
            dq_sum_ref[:, queries] += _dot(k_ref[:, keys], dscores)
            dk_sum_ref[:, keys] += _dot_last(q_ref[:, queries], dscores)

        _each_key_block(kinds_ref, i, read)

    dq_ref[...] = dq_sum_ref[...].astype(dq_ref.dtype)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        dk_ref[...] = dk_sum_ref[...].astype(dk_ref.dtype)
        dv_ref[...] = dv_sum_ref[...].astype(dv_ref.dtype)


def _each_key_block(kinds_ref, i, read):
    """Calls read(j, masked) for each block j of keys of which query block i reads something."""

    @pl.loop(0, i + 1)
    def _(j):
        kind = kinds_ref[i, j]
        pl.when(kind == ALL)(lambda: read(j, masked=False))
        pl.when(kind == SOME)(lambda: read(j, masked=True))


def _mask(i, j, block, ends_ref):
    """bool[keys, queries]: the keys of block j that each query of block i reads, if there is no window."""
    query = i * block + jax.lax.broadcasted_iota(jnp.int32, (block, block), 1)
    key = j * block + jax.lax.broadcasted_iota(jnp.int32, (block, block), 0)
    return (key <= query) & (query < ends_ref[_block(j, block), :])


def _block(i, block):
    return pl.ds(pl.multiple_of(i * block, block), block)


def _transpose(x_ref, out_ref, block):
    @pl.loop(0, out_ref.shape[0] // block)
    def _(j):
        tokens = _block(j, block)
        out_ref[tokens, :] = x_ref[:, tokens].T


def _dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _dot_last(a, b):
    """a b^T."""
    return jax.lax.dot_general(a, b, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
