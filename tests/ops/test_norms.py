import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.norms import layer_norm, rms_norm


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.normal(2.0, 3.0, (2, 5, 16)), rng.normal(size=16), rng.normal(size=16)


def test_rms_norm_is_its_formula(arrays):
    x, scale, _ = arrays
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * scale
    got = rms_norm(jnp.float32(x), jnp.float32(scale), 1e-3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_scales_count_from_the_offset(arrays):
    x, scale, _ = (jnp.float32(a) for a in arrays)
    np.testing.assert_allclose(rms_norm(x, scale - 1, 1e-3, offset=1.0), rms_norm(x, scale, 1e-3), atol=1e-5)


def test_layer_norm_is_its_formula(arrays):
    x, scale, bias = arrays
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * scale + bias
    got = layer_norm(jnp.float32(x), jnp.float32(scale), jnp.float32(bias), 1e-3)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_layer_norms_without_scale_or_bias(arrays):
    x, scale, bias = (jnp.float32(a) for a in arrays)
    one, zero = jnp.ones_like(scale), jnp.zeros_like(bias)
    np.testing.assert_array_equal(layer_norm(x, scale, None, 1e-3), layer_norm(x, scale, zero, 1e-3))
    np.testing.assert_array_equal(layer_norm(x, None, None, 1e-3), layer_norm(x, one, zero, 1e-3))


def test_each_vector_may_have_a_scale_of_its_own(arrays):
    x_BND, scale, _ = (jnp.float32(a) for a in arrays)
    scale_ND = jnp.arange(1.0, 6.0)[:, None] * scale[None]
    got = layer_norm(x_BND, scale_ND, None, 1e-3)
    for n in range(5):
        np.testing.assert_array_equal(got[:, n], layer_norm(x_BND[:, n], scale_ND[n], None, 1e-3))


def test_bfloat16_is_normed_in_float32(arrays):
    x, scale, bias = (jnp.bfloat16(a) for a in arrays)
    for norm in (lambda x, s, b: rms_norm(x, s, 1e-5), lambda x, s, b: layer_norm(x, s, b, 1e-5)):
        got = norm(x, scale, bias)
        exact = norm(*(a.astype(jnp.float32) for a in (x, scale, bias)))
        assert got.dtype == jnp.bfloat16
        assert jnp.array_equal(got, exact.astype(jnp.bfloat16))


def test_zeros_have_finite_gradients(arrays):
    _, scale, _ = arrays
    gradient = jax.grad(lambda x: rms_norm(x, jnp.float32(scale), 1e-5).sum())(jnp.zeros((1, 16)))
    assert jnp.isfinite(gradient).all()
