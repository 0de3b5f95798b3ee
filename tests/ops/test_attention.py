import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import attention as slow

from modjax.ops.attention import attend

B, T, N, K, H = 2, 7, 6, 2, 4
# Two trees and padding; one tree whose root has two branches.
POSITIONS = jnp.array([[0, 1, 2, 2, 0, 1, 0], [0, 1, 2, 3, 1, 2, 3]], jnp.int32)
ENDS = jnp.array([[4, 4, 3, 4, 6, 6, 0], [7, 4, 4, 4, 7, 7, 7]], jnp.int32)


@pytest.fixture
def qkv():
    rng = np.random.default_rng(0)
    return tuple(jnp.float32(rng.normal(size=(B, T, heads, H))) for heads in (N, K, K))


@pytest.mark.parametrize("window", [None, 2, jnp.int32(2), 1])
def test_attend_equals_loops(qkv, window):
    got = attend(*qkv, POSITIONS, ENDS, window=window)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, window), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, jnp.float32(0.1)])
def test_scale_and_softcap(qkv, scale):
    got = attend(*qkv, POSITIONS, ENDS, scale=scale, softcap=1.5)
    np.testing.assert_allclose(got, slow.attend(*qkv, POSITIONS, ENDS, None, scale, 1.5), atol=1e-6)


def test_reading_nothing_gives_zeros_and_finite_gradients(qkv):
    ends = jnp.zeros((B, T), jnp.int32)
    assert not attend(*qkv, POSITIONS, ends).any()
    gradients = jax.grad(lambda arrays: attend(*arrays, POSITIONS, ends).sum())(qkv)
    assert all(jnp.isfinite(g).all() for g in gradients)


def test_large_scores_stay_finite(qkv):
    q, k, v = qkv
    got, gradient = jax.value_and_grad(lambda q: attend(q, k, v, POSITIONS, ENDS).sum())(q * 1e5)
    assert jnp.isfinite(got) and jnp.isfinite(gradient).all()


def test_bfloat16_accumulates_in_float32(qkv):
    halves = tuple(a.astype(jnp.bfloat16) for a in qkv)
    got = attend(*halves, POSITIONS, ENDS)
    exact = attend(*(a.astype(jnp.float32) for a in halves), POSITIONS, ENDS)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(got), exact, atol=2e-2)
