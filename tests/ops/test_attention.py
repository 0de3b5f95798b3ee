import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.attention import attend, causal_mask

B, T, N, K, H = 2, 7, 6, 2, 4


@pytest.fixture
def qkv():
    rng = np.random.default_rng(0)
    return tuple(jnp.float32(rng.normal(size=(B, T, heads, H))) for heads in (N, K, K))


def row(*values):
    return jnp.array([values], jnp.int32)


def slow_attention(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=H**-0.5, softcap=1e9):
    q_BTNH, k_BSKH, v_BSKH = (np.float64(a) for a in (q_BTNH, k_BSKH, v_BSKH))
    out_BTNH = np.zeros_like(q_BTNH)
    for b, t, n in np.ndindex(q_BTNH.shape[:3]):
        keys = np.flatnonzero(mask_BTS[b, t])
        if len(keys):
            scores = k_BSKH[b, keys, n // (N // K)] @ q_BTNH[b, t, n] * scale
            scores = softcap * np.tanh(scores / softcap)
            weights = np.exp(scores - scores.max())
            out_BTNH[b, t, n] = weights / weights.sum() @ v_BSKH[b, keys, n // (N // K)]
    return out_BTNH


def test_mask_is_causal_within_segments():
    positions, segments = row(0, 1, 0, 1, 0), row(1, 1, 2, 2, 0)
    mask = causal_mask(positions, positions, segments, segments)[0]
    expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))


def test_window_counts_the_token_itself():
    positions, segments = row(0, 1, 2, 3), row(1, 1, 1, 1)
    mask = causal_mask(positions, positions, segments, segments, window=2)[0]
    np.testing.assert_array_equal(mask.sum(-1), [1, 2, 2, 2])
    assert mask[3, 2] and not mask[3, 1]


def test_attend_equals_loops(qkv):
    mask_BTS = np.random.default_rng(1).random((B, T, T)) < 0.5
    mask_BTS[0, 3] = False
    np.testing.assert_allclose(attend(*qkv, jnp.array(mask_BTS)), slow_attention(*qkv, mask_BTS), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, jnp.float32(0.1)])
def test_scale_and_softcap(qkv, scale):
    mask_BTS = np.tril(np.ones((B, T, T), bool))
    got = attend(*qkv, jnp.array(mask_BTS), scale, softcap=1.5)
    np.testing.assert_allclose(got, slow_attention(*qkv, mask_BTS, float(scale), 1.5), atol=1e-6)


def test_reading_nothing_gives_zeros_and_finite_gradients(qkv):
    mask_BTS = jnp.zeros((B, T, T), bool)
    assert not attend(*qkv, mask_BTS).any()
    gradients = jax.grad(lambda arrays: attend(*arrays, mask_BTS).sum())(qkv)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_large_scores_stay_finite(qkv):
    q, k, v = qkv
    mask_BTS = jnp.ones((B, T, T), bool)
    got, gradient = jax.value_and_grad(lambda q: attend(q, k, v, mask_BTS).sum())(q * 1e5)
    assert jnp.isfinite(got) and jnp.isfinite(gradient).all()


def test_bfloat16_accumulates_in_float32(qkv):
    q, k, v = (a.astype(jnp.bfloat16) for a in qkv)
    mask_BTS = jnp.ones((B, T, T), bool)
    got = attend(q, k, v, mask_BTS)
    exact = attend(*(a.astype(jnp.float32) for a in (q, k, v)), mask_BTS)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), exact, atol=2e-2)
