"""The TPU kernels, interpreted on the CPU, against attention with all scores; and that they are lowered for a TPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from references.attention import readable, rows, with_all_scores

from modjax.ops import attention, attention_tpu
from modjax.ops.attention_tpu import ALL, NOTHING, SOME, backward, fits, forward
from modjax.parallel.mesh import make_mesh

T = 264  # of three blocks of 128 tokens, the last with padding


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(attention_tpu, "BLOCK", 128)


def arrays(B, N, K, H, dtype=jnp.float32):
    rng = np.random.default_rng(1)
    return tuple(jnp.array(rng.normal(size=(B, T, heads, H)), dtype) for heads in (N, K, K, N))


@pytest.mark.parametrize(
    ("B", "N", "K", "H", "window", "softcap"),
    [(2, 2, 2, 16, None, None), (1, 4, 2, 12, 37, 1.5)],
    ids=["plain", "grouped heads, a window, a soft cap, a width that is padded"],
)
def test_output_and_gradients_equal_those_with_all_scores(B, N, K, H, window, softcap):
    positions_BT, ends_BT = rows(0, B, T)
    q, k, v, g = arrays(B, N, K, H)
    scale = jnp.float32(0.4)
    options = (positions_BT, ends_BT, None if window is None else jnp.int32(window), scale, softcap)
    out, lse = jax.jit(lambda q, k, v: forward(q, k, v, *options, interpret=True))(q, k, v)
    grads = jax.jit(lambda *given: backward(q, k, v, *options, *given, interpret=True))(out, lse, g)

    mask_BTS = readable(positions_BT, ends_BT, window)
    reference = functools.partial(with_all_scores, mask_BTS=mask_BTS, scale=scale, softcap=softcap)
    expected, pull = jax.vjp(reference, q, k, v)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    for got, wanted in zip(grads, pull(g), strict=True):
        np.testing.assert_allclose(got, wanted, atol=5e-6)
    padding = ~mask_BTS.any(axis=-1)
    assert padding.any() and not np.array(out)[padding].any() and not np.array(grads[0])[padding].any()


def test_bfloat16_is_summed_in_float32():
    positions_BT, ends_BT = rows(0, 1, T)
    q, k, v, g = arrays(1, 1, 1, 16, jnp.bfloat16)
    options = (positions_BT, ends_BT, None, 0.25, None)
    out, lse = forward(q, k, v, *options, interpret=True)
    grads = backward(q, k, v, *options, out, lse, g, interpret=True)
    q, k, v, g = (np.float32(x) for x in (q, k, v, g))
    mask_BTS = readable(positions_BT, ends_BT, None)
    expected, pull = jax.vjp(functools.partial(with_all_scores, mask_BTS=mask_BTS, scale=0.25, softcap=None), q, k, v)
    assert {x.dtype for x in (out, *grads)} == {jnp.bfloat16.dtype} and lse.dtype == jnp.float32
    for got, wanted in zip((out, *grads), (expected, *pull(g)), strict=True):
        np.testing.assert_allclose(np.float32(got), wanted, atol=0.01 * np.abs(wanted).max())


@pytest.mark.parametrize("window", [None, 20])
def test_a_pair_of_blocks_is_left_out_exactly_when_nothing_is_read(window):
    positions_BT, ends_BT = rows(2, 8, 256)
    kinds = np.array(attention_tpu._kinds(positions_BT, ends_BT, window, 32))
    pairs = readable(positions_BT, ends_BT, window).reshape(8, 8, 32, 8, 32)
    read = pairs.any(axis=(2, 4))
    assert set(np.unique(kinds)) == ({NOTHING, SOME, ALL} if window is None else {NOTHING, SOME})
    assert not read[kinds == NOTHING].any()
    assert pairs.all(axis=(2, 4))[kinds == ALL].all()
    if window is None:
        assert read[kinds == SOME].all()


def test_what_is_read_whole_within_a_window_needs_no_mask():
    positions_BT = jnp.arange(64, dtype=jnp.int32)[None]
    kinds = attention_tpu._kinds(positions_BT, jnp.full_like(positions_BT, 64), 33, 16)
    expected = [[SOME, NOTHING, NOTHING, NOTHING], [ALL, SOME, NOTHING, NOTHING], [SOME, ALL, SOME, NOTHING],
                [NOTHING, SOME, ALL, SOME]]  # fmt: skip
    np.testing.assert_array_equal(kinds[0], expected)


@pytest.mark.parametrize("H", [64, 80, 96, 128])
@pytest.mark.parametrize(("length", "window", "softcap"), [(2048, None, None), (648, 512, 50.0)])
def test_both_kernels_are_lowered_for_a_tpu(monkeypatch, H, length, window, softcap):
    monkeypatch.setattr(attention_tpu, "BLOCK", 512)
    query, key = (jax.ShapeDtypeStruct((1, length, heads, H), jnp.bfloat16) for heads in (4, 2))
    number = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def both(q, k, v, positions, ends, g):
        options = (positions, ends, window, H**-0.5, softcap)
        out, lse = forward(q, k, v, *options)
        return backward(q, k, v, *options, out, lse, g)

    text = jax.jit(both).trace(query, key, key, number, number, query).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 2


def test_on_a_mesh_each_device_gets_kernels_of_its_own(monkeypatch):
    """XLA cannot split a kernel over devices, and lowering raises NotImplementedError for one that it would have to."""
    monkeypatch.setattr(attention, "MAY_BE_TPU", True)
    by_row = NamedSharding(make_mesh(expert=2, fsdp=2, tensor=2), P("expert", "fsdp"))

    def on_mesh(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct((2, 4, 256, *shape), dtype, sharding=by_row)

    def total(*inputs):
        attend = functools.partial(attention.attend, row_axes=("fsdp",))
        return jax.vmap(attend, spmd_axis_name="expert")(*inputs).astype(jnp.float32).sum()

    inputs = (on_mesh(4, 64), on_mesh(2, 64), on_mesh(2, 64), *2 * (on_mesh(dtype=jnp.int32),))
    text = jax.jit(jax.grad(total)).trace(*inputs).lower(lowering_platforms=("tpu",)).as_text()
    calls = [line for line in text.split("\n") if "tpu_custom_call" in line]
    # One expert of two, two rows of four, two query heads of four.
    assert len(calls) == 2 and all("tensor<2x2x64x256xbf16>" in line for line in calls)


def test_long_rows_do_not_fit():
    assert fits(4096, 128, jnp.bfloat16) and not fits(32768, 128, jnp.bfloat16)
