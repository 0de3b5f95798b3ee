import jax.numpy as jnp
import numpy as np
import pytest

from modjax.ops.rope import Scaling, frequencies, rope_angles, rotate

THETA = 1000.0


def rotated(x_BTNH, positions_BT, dim):
    return rotate(x_BTNH, rope_angles(positions_BT, frequencies(dim, THETA)))


@pytest.mark.parametrize("adjacent", [False, True])
@pytest.mark.parametrize("dim", [8, 4])
def test_each_pair_turns_by_its_angle(dim, adjacent):
    x_BTNH = np.random.default_rng(0).normal(size=(2, 6, 3, 8))
    positions_BT = np.array([[0, 1, 2, 3, 4, 5], [7, 7, 0, 3, 900, 1]])
    expected = x_BTNH.copy()
    for j in range(dim // 2):
        turn = np.exp(1j * positions_BT * THETA ** (-2 * j / dim))[:, :, None]
        one, other = (2 * j, 2 * j + 1) if adjacent else (j, j + dim // 2)
        pair = (x_BTNH[..., one] + 1j * x_BTNH[..., other]) * turn
        expected[..., one], expected[..., other] = pair.real, pair.imag
    angles_BTJ = rope_angles(jnp.array(positions_BT), frequencies(dim, THETA))
    got = rotate(jnp.float32(x_BTNH), angles_BTJ, adjacent=adjacent)
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_products_depend_on_distance_alone():
    rng = np.random.default_rng(1)
    q, k = (jnp.float32(rng.normal(size=(1, 1, 1, 8))) for _ in range(2))

    def product(q_at, k_at):
        return (rotated(q, jnp.array([[q_at]]), 8) * rotated(k, jnp.array([[k_at]]), 8)).sum()

    np.testing.assert_allclose(product(9, 4), product(105, 100), rtol=1e-4)


def test_dtype_is_kept():
    assert rotated(jnp.ones((1, 2, 1, 8), jnp.bfloat16), jnp.array([[0, 1]]), 4).dtype == jnp.bfloat16


def test_magnitude_multiplies_what_turns_alone():
    x_BTNH, angles_BTJ = jnp.ones((1, 3, 2, 8)), jnp.ones((1, 3, 2))
    plain, larger = rotate(x_BTNH, angles_BTJ), rotate(x_BTNH, angles_BTJ, 1.5)
    np.testing.assert_allclose(larger[..., :4], 1.5 * plain[..., :4], rtol=1e-6)
    np.testing.assert_array_equal(larger[..., 4:], plain[..., 4:])


LLAMA31 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32_768}
SCALED = [
    ("linear", {"factor": 4.0}, Scaling("linear", 4.0)),
    ("llama3", LLAMA31, Scaling("llama3", 8.0, 8192, slow=1.0, fast=4.0)),
    ("yarn", YARN, Scaling("yarn", 4.0, 32_768, slow=1.0, fast=32.0)),
    ("yarn", YARN | {"truncate": False}, Scaling("yarn", 4.0, 32_768, slow=1.0, fast=32.0, truncate=False)),
    ("yarn", {"factor": 4.0, "original_max_position_embeddings": 4}, Scaling("yarn", 4.0, 4, slow=1.0, fast=32.0)),
]


@pytest.mark.parametrize(("kind", "parameters", "scaling"), SCALED)
def test_scaled_frequencies_are_those_of_transformers_at_full_size(kind, parameters, scaling):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = parameters | {"rope_type": kind, "rope_theta": 5e5}
    config = LlamaConfig(head_dim=128, max_position_embeddings=131_072, rope_parameters=parameters)
    expected_J, _ = ROPE_INIT_FUNCTIONS[kind](config)
    np.testing.assert_allclose(frequencies(128, 5e5, scaling), expected_J.numpy(), rtol=1e-5)


def test_longrope_has_factors_for_short_and_long():
    scaling = Scaling("longrope", short=(1.0, 2.0), long=(4.0, 8.0))
    short, long = (frequencies(4, THETA, scaling, long) for long in (False, True))
    np.testing.assert_allclose(short, [1, THETA**-0.5 / 2], rtol=1e-6)
    np.testing.assert_allclose(long, [1 / 4, THETA**-0.5 / 8], rtol=1e-6)
