"""SpectR routing (arXiv 2504.03454): each token goes to the experts whose updates amplify it most.

Arrow uses one direction of an expert's update B^T A. SpectR uses its whole spectrum, so that the score is the norm of
the expert's output.
"""

import jax
import jax.numpy as jnp

from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import LoRA, Mix
from modjax.routing.base import Router, checked_mix, per_site, static
from modjax.routing.prototypes import score_scale
from modjax.routing.top_k import checked_temperature, checked_top_k, heard, top_k_softmax, without_silent


class Spectr(Router):
    directions: dict[str, jax.Array] = per_site("LERI")  # float32, each times its singular value
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        directions_ERI = self.directions[site]
        score_BTE = without_silent(lengths(x_BTI, directions_ERI), heard(directions_ERI[:, 0]))
        return top_k_softmax(score_BTE, self.top_k, self.temperature)


def spectr(
    library: Library,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "outputs",
    scaled: bool = False,
    failed: bool = False,
) -> Spectr:
    """A router built from the library alone.

        B_e^T A_e = U_e diag(sigma_e) V_e^T,  score_e = ||diag(sigma_e) V_e^T x|| = ||B_e^T A_e x||,
        weights = softmax over the top k of score / temperature

    The SVD is computed from R x R cores, without O x I products. A score costs R I multiplications; outputs are not
    computed.

    Args:
      top_k: experts kept per token; -1, or more than there are, keeps all.
      temperature: of the softmax, positive.
      mix: "outputs" depends, like the score, only on B_e^T A_e; "parameters" also on its factorisation.
      scaled: multiply an expert's score by its alpha / rank; in the paper it is not.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    return Spectr(directions(silenced(library, failed), scaled), top_k, temperature, mix)


def directions(library: Library, scaled: bool) -> dict[str, jax.Array]:
    """{site: float32[L,E,R,I]}: the right singular vectors of B_e^T A_e, each times its singular value, largest first.

    scaled: multiply them by the expert's scale as well.
    """
    return {site: _directions(lora, score_scale(lora, scaled)) for site, lora in library.loras.items()}


@jax.jit
def _directions(lora: LoRA, scale_LE):
    found = low_rank_svd(lora.factors)
    return (scale_LE[..., None] * found.s)[..., None] * found.v


def lengths(x_BTI: jax.Array, directions_ERI: jax.Array) -> jax.Array:
    """The norm of each expert's product with each token, float32[B,T,E]."""
    product_BTER = jnp.einsum("bti,eri->bter", x_BTI.astype(jnp.float32), directions_ERI)
    return jnp.linalg.norm(product_BTER, axis=-1)
