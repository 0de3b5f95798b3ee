"""Arrow routing (arXiv 2405.11157, section 3.2): each token goes to the experts that would act on it most.

An expert's prototype at a site is the unit input direction that its update B^T A amplifies most, its first
right singular vector. Tokens that resemble what an expert was trained on are amplified by it, so |x . p_e|
ranks the experts without any training.
"""

import jax
import jax.numpy as jnp

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import Mix
from modjax.routing.base import Router, static, top_k_softmax


class Arrow(Router):
    prototypes: dict[str, jax.Array]  # {site: float32[L,E,I]}
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("parameters")

    def __call__(self, site, x_BTI, context):
        prototype_EI = self.prototypes[site]
        score_BTE = jnp.abs(jnp.einsum("bti,ei->bte", x_BTI.astype(jnp.float32), prototype_EI))
        temperature = self.temperature if self.temperature > 0 else prototype_EI.shape[-1] ** 0.5
        return top_k_softmax(score_BTE, self.top_k, temperature)


def arrow(library: Library, top_k: int = 4, temperature: float = 1.0, mix: Mix = "parameters") -> Arrow:
    """A router from the experts alone.

        score_e = |x . p_e|,  weights = softmax over the top k of score / temperature

    The absolute value, because a singular vector has no sign.

    Args:
      top_k: experts kept for each token; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      mix: "parameters" as in the paper, "outputs" as in PEFT.
    """
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")
    prototypes = {site: _prototypes(lora) for site, lora in library.loras.items()}
    return Arrow(prototypes, top_k, float(temperature), mix)


@jax.jit
def _prototypes(lora):
    """float32[L,E,I]: the first right singular vector of each B^T A."""
    return low_rank_svd(lora).v[..., 0, :]
