"""One pair of factors from those of several experts, for all layers at once: summed, or stacked along the rank."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from modjax.ops.lora import Factors, LoRA


class Shares(NamedTuple):
    """The weights of each expert's A and B in a combination, float32[L,E] each."""

    a: jax.Array
    b: jax.Array


@jax.jit
def summed(lora: LoRA, shares: Shares) -> Factors:
    """sum_e a_e A_e and sum_e b_e B_e, as a[L,R,I] and b[L,R,O]; their product has cross terms."""
    pairs = zip(lora.factors, shares, strict=True)
    return Factors(*(jnp.einsum("lerx,le->lrx", factor, share_LE, precision="highest") for factor, share_LE in pairs))


@jax.jit
def stacked(lora: LoRA, share_LE: jax.Array) -> Factors:
    """All A_e and all share_e B_e, a[L,E*R,I] and b[L,E*R,O]; their product is sum_e share_e B_e^T A_e."""
    a_LERI, b_LERO = lora.factors
    scaled_LERO = share_LE[..., None, None] * b_LERO
    return Factors(*(x.reshape(x.shape[0], -1, x.shape[3]) for x in (a_LERI, scaled_LERO)))
