import jax
import jax.numpy as jnp
import numpy as np

from modjax.models.sampling import sample


def test_zero_temperature_takes_the_likeliest():
    logits_BV = jnp.array([[0.0, 3.0, 1.0], [2.0, -1.0, 1.9]])
    got = sample(logits_BV, jax.random.split(jax.random.key(0), 2), 0.0)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [1, 0])


def test_draws_follow_the_softmax():
    logits_BV = jnp.broadcast_to(jnp.array([[0.0, 1.0, 2.0]]), (20_000, 3))
    for temperature in (1.0, 2.0):
        drawn = sample(logits_BV, jax.random.split(jax.random.key(1), len(logits_BV)), temperature)
        frequencies = np.bincount(drawn, minlength=3) / len(drawn)
        np.testing.assert_allclose(frequencies, jax.nn.softmax(logits_BV[0] / temperature), atol=0.015)
