import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.rope import rope_angles, rotate

THETA = 1000.0


def rotated(x_BTNH, positions_BT, dim):
    return rotate(x_BTNH, rope_angles(positions_BT, dim, THETA))


@pytest.mark.parametrize("dim", [8, 4])
def test_each_pair_turns_by_its_angle(dim):
    x_BTNH = np.random.default_rng(0).normal(size=(2, 6, 3, 8))
    positions_BT = np.array([[0, 1, 2, 3, 4, 5], [7, 7, 0, 3, 900, 1]])
    expected = x_BTNH.copy()
    for j in range(dim // 2):
        turn = np.exp(1j * positions_BT * THETA ** (-2 * j / dim))[:, :, None]
        pair = (x_BTNH[..., j] + 1j * x_BTNH[..., j + dim // 2]) * turn
        expected[..., j], expected[..., j + dim // 2] = pair.real, pair.imag
    got = rotated(jnp.float32(x_BTNH), jnp.array(positions_BT), dim)
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_products_depend_on_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.float32(rng.normal(size=(1, 1, 1, 8))) for _ in range(2))

    def product(q_at, k_at):
        return (rotated(q, jnp.array([[q_at]]), 8) * rotated(k, jnp.array([[k_at]]), 8)).sum()

    np.testing.assert_allclose(product(9, 4), product(105, 100), rtol=1e-4)


def test_dtype_is_kept():
    assert rotated(jnp.ones((1, 2, 1, 8), jnp.bfloat16), jnp.array([[0, 1]]), 4).dtype == jnp.bfloat16
