"""From logits to the next token."""

import jax
import jax.numpy as jnp


def sample(logits_BV: jax.Array, keys_B: jax.Array, temperature: float) -> jax.Array:
    """The likeliest token at temperature 0, else one drawn from softmax(logits / temperature).

    logits_BV: float32[B, V]; keys_B: key[B], one a row; result: int32[B].
    """
    if temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV / temperature).astype(jnp.int32)
