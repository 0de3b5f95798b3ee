"""Several experts' factors as one pair, of all layers at once: added up, or one below the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.experts.axis import full
from modjax.ops.lora import LoRA


class Shares(NamedTuple):
    """What an expert's A and B are multiplied by before they are put together, float32[E] each."""

    a: np.ndarray
    b: np.ndarray


@jax.jit
def summed(lora: LoRA, shares: Shares) -> LoRA:
    """sum_e a_e A_e and sum_e b_e B_e, as a[L,R,I] and b[L,R,O]; their product has cross terms."""
    pairs = zip(full(lora), shares, strict=True)
    return LoRA(*(jnp.einsum("lerx,e->lrx", factor, share_E, precision="highest") for factor, share_E in pairs))


@jax.jit
def stacked(lora: LoRA, share_E: jax.Array) -> LoRA:
    """All A_e and all share_e B_e, a[L,E*R,I] and b[L,E*R,O]; their product is sum_e share_e B_e^T A_e."""
    a_LERI, b_LERO = full(lora)
    scaled_LERO = share_E[None, :, None, None] * b_LERO
    return LoRA(*(x.reshape(x.shape[0], -1, x.shape[3]) for x in (a_LERI, scaled_LERO)))
