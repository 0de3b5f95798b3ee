import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.linalg import kth_smallest_magnitude, leading, low_rank_svd
from modjax.ops.lora import Factors


@pytest.mark.parametrize("shape", [(2, 3, 4, 16, 24), (1, 1, 1, 9, 5), (2, 2, 8, 8, 8)])
def test_low_rank_svd_equals_the_svd_of_the_product(shape):
    *lead, rank, width, out = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(*lead, rank, width)), rng.normal(size=(*lead, rank, out))
    u, s, v = jax.jit(low_rank_svd)(Factors(jnp.float32(a), jnp.float32(b)))
    product = np.swapaxes(b, -1, -2) @ a
    expected_u, expected_s, expected_vt = np.linalg.svd(product, full_matrices=False)
    np.testing.assert_allclose(s, expected_s[..., :rank], rtol=1e-4, atol=1e-4)
    rebuilt = np.einsum("...ro,...r,...ri->...oi", u, s, v)
    np.testing.assert_allclose(rebuilt, product, atol=1e-4)
    first_u, first_v = expected_u[..., :, 0], expected_vt[..., 0, :]
    for got, expected in ((u[..., 0, :], first_u), (v[..., 0, :], first_v)):
        np.testing.assert_allclose(np.abs(np.sum(got * expected, axis=-1)), 1, atol=1e-5)


def test_low_rank_svd_of_deficient_factors_is_finite():
    rng = np.random.default_rng(1)
    a, b = (np.float32(rng.normal(size=(3, 4, 10))) for _ in range(2))
    b[0], b[1, 2:] = 0, 0
    a[2, 1:] = a[2, :1]
    u, s, v = low_rank_svd(Factors(jnp.array(a), jnp.array(b)))
    assert all(np.isfinite(leaf).all() for leaf in (u, s, v))
    # Rows of v are unit vectors in the row space of A for any B; a[2] has rank 1, so its other rows are zero.
    np.testing.assert_allclose(np.linalg.norm(v, axis=-1), [[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0]], atol=1e-5)
    np.testing.assert_allclose(np.einsum("ero,er,eri->eoi", u, s, v), np.swapaxes(b, 1, 2) @ a, atol=1e-5)
    assert not s[0].any() and np.all(s[1, 2:] < 1e-5)


def graded(rng, shape, ratio):
    """Factors whose rows shrink to this ratio of the first and are all but parallel."""
    rows = rng.normal(size=shape) + 3 * rng.normal(size=(*shape[:-2], 1, shape[-1]))
    return rows * np.geomspace(1, ratio, shape[-2])[:, None]


@pytest.mark.parametrize("kind", ["random", "graded", "one is 0", "all but orthogonal", "dependent"])
def test_the_leading_direction_equals_that_of_the_svd(kind):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 5, 4, 48)), rng.normal(size=(2, 5, 4, 32))
    if kind == "graded":
        a, b = graded(rng, a.shape, 1e-3), graded(rng, b.shape, 1e-6)
    if kind == "one is 0":
        b[0, 2], a[1, 3] = 0, 0
    if kind == "all but orthogonal":  # what A reads most of, B writes least
        a, b = a * np.geomspace(1, 1e-4, 4)[:, None], b * np.geomspace(1e-4, 1, 4)[:, None]
    if kind == "dependent":
        a[0, 1], b[0, 1] = np.tile(a[0, 1, :1], (4, 1)), np.tile(b[0, 1, :1], (4, 1)) * [[1], [-1], [1], [-1]]
    factors = Factors(jnp.float32(a), jnp.float32(b))
    v, s = jax.jit(leading)(factors)
    product = np.swapaxes(np.float64(factors.b), -1, -2) @ np.float64(factors.a)
    _, expected_s, expected_vt = np.linalg.svd(product, full_matrices=False)
    np.testing.assert_allclose(s, expected_s[..., 0], rtol=1e-5, atol=1e-5 if kind == "dependent" else 0)
    there = expected_s[..., 0] > 1e-12
    assert (~there).sum() == {"one is 0": 2, "dependent": 1}.get(kind, 0)
    np.testing.assert_allclose(np.abs(np.sum(v * expected_vt[..., 0, :], axis=-1))[there], 1, atol=1e-5)


def blocks_with_ties():
    rng = np.random.default_rng(2)
    x_EP = np.float32(rng.normal(size=(4, 60)))
    x_EP[1] = np.round(x_EP[1])  # ties, among them zeros
    x_EP[2, :40] = 0
    x_EP[3] *= 1e-41  # subnormal numbers
    return x_EP, [jnp.array(x_EP[:, :7]), jnp.array(x_EP[:, 7:8]), jnp.array(x_EP[:, 8:])]


@pytest.mark.parametrize("k", [0, 1, 17, 29, 58, 59])
def test_kth_smallest_magnitude_equals_partition(k):
    x_EP, blocks = blocks_with_ties()
    got = jax.jit(kth_smallest_magnitude)(blocks, jnp.full(4, k, jnp.int32))
    np.testing.assert_array_equal(np.asarray(got).view(np.int32), np.partition(np.abs(x_EP), k)[:, k].view(np.int32))


@pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 0.8, 0.99])
def test_kth_smallest_keeps_what_the_quantile_keeps(quantile):
    x_EP, blocks = blocks_with_ties()
    k = int(np.floor(quantile * (x_EP.shape[1] - 1)))
    threshold_E = np.asarray(kth_smallest_magnitude(blocks, jnp.full(4, k, jnp.int32)))
    magnitude_EP = np.abs(np.float64(x_EP))
    expected = magnitude_EP > np.quantile(magnitude_EP, quantile, axis=1, keepdims=True)
    np.testing.assert_array_equal(magnitude_EP > np.float64(threshold_E)[:, None], expected)


def test_each_expert_has_its_own_k():
    x_EP, blocks = blocks_with_ties()
    k_E = np.array([3, 40, 41, 0], np.int32)
    expected = [np.sort(np.abs(row))[k] for row, k in zip(x_EP, k_E, strict=True)]
    np.testing.assert_array_equal(kth_smallest_magnitude(blocks, jnp.array(k_E)), expected)
