"""Scores divided by the temperature of a softmax."""

import jax
import jax.numpy as jnp


def cooled(score: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """score / temperature, float32, to be followed by a softmax over the last axis.

    A temperature so close to 0 that quotients would overflow is raised until they do not: the softmax is then exactly
    at its limit, all weight on the largest score. A score of -inf stays -inf.
    """
    largest = jnp.max(jnp.where(jnp.isfinite(score), jnp.abs(score), 0), axis=-1, keepdims=True)
    return score / jnp.maximum(temperature, jnp.maximum(1e-30 * largest, jnp.finfo(jnp.float32).tiny))
