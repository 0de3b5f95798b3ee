import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.top_k import TopK, _compared, _scattered, among, dense, spread


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 7)])
@pytest.mark.parametrize("way", [spread, _compared, _scattered])
def test_spread_puts_values_at_their_experts(shape, way):
    """With both implementations, and the one chosen for this device."""
    score = jax.random.normal(jax.random.key(0), shape)
    top, ids = jax.lax.top_k(score, 3)
    np.testing.assert_array_equal(way(top, ids, 7), np.where(score >= top[..., -1:], score, 0))


def test_weights_of_some_experts_are_weights_of_all():
    ids = jnp.array([[4, 1, 6], [0, 2, 5]])
    kept, every = TopK(jnp.array([[2, 0], [1, 2]]), jnp.array([[0.7, 0.3], [0.6, 0.4]])), jnp.eye(3)[:2]
    np.testing.assert_allclose(dense(among(ids, kept), 7), [[0, 0, 0, 0, 0.3, 0, 0.7], [0, 0, 0.6, 0, 0, 0.4, 0]][::1])
    np.testing.assert_allclose(dense(among(ids, every), 7)[0], np.eye(7)[4])
