"""The input direction that an expert's update amplifies most: its prototype."""

import jax
import jax.numpy as jnp

from modjax.ops.linalg import leading
from modjax.ops.lora import LoRA

Leading = tuple[jax.Array, jax.Array]


@jax.jit
def exact(lora: LoRA) -> Leading:
    """The first right singular vector of each B^T A, and its singular value, float32[L,E,I] and float32[L,E].

    One layer at a time. lora: a float32[L,E,R,I], or [L,1,R,I] if the experts share A, and b float32[L,E,R,O].
    """
    return jax.lax.map(leading, lora.factors)


@jax.jit
def directions(lora: LoRA) -> jax.Array:
    """The unit vectors of `exact`, float32[L,E,I]; 0 where an expert's update s_e B_e^T A_e is 0."""
    vector_LEI, value_LE = exact(lora)
    return jnp.where(((lora.scale != 0) & (value_LE > 0))[..., None], vector_LEI, 0)
