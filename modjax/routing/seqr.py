"""SEQR routing (arXiv 2509.18093): SpectR's score at R x R numbers an expert, where experts share their A.

The length of B_e^T z is that of any root C_e z with C_e^T C_e = B_e B_e^T, which is only R x R. With one A for all
experts, z = A x is made once.
"""

import jax
import jax.numpy as jnp

from modjax.experts.library import Library
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import Factors, Mix
from modjax.routing.base import Router, per_site, static
from modjax.routing.calibration import standardised, uncalibrated
from modjax.routing.prototypes import score_scale
from modjax.routing.top_k import check_temperature, check_top_k, top_k_softmax


class Seqr(Router):
    a: dict[str, jax.Array] = per_site("LSRI")  # float32; S is 1 where all experts have one A, else E
    roots: dict[str, jax.Array] = per_site("LEQR")  # float32, Q = R
    mean: dict[str, jax.Array] = per_site("LE")  # float32, of the score, as is
    deviation: dict[str, jax.Array] = per_site("LE")
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        score_BTE = standardised(self.raw(site, x_BTI), self.mean[site], self.deviation[site])
        return top_k_softmax(score_BTE, self.top_k, self.temperature)

    def raw(self, site: str, x_BTI: jax.Array) -> jax.Array:
        """Scores before they are standardised, float32[B,T,E]."""
        z_BTSR = jnp.einsum("bti,sri->btsr", x_BTI.astype(jnp.float32), self.a[site])
        if z_BTSR.shape[2] == 1:
            turned_BTEQ = jnp.einsum("btr,eqr->bteq", z_BTSR[:, :, 0], self.roots[site])
        else:
            turned_BTEQ = jnp.einsum("bter,eqr->bteq", z_BTSR, self.roots[site])
        return jnp.linalg.norm(turned_BTEQ, axis=-1)


def seqr(
    library: Library, top_k: int = 4, temperature: float = 1.0, mix: Mix = "outputs", scaled: bool = False
) -> Seqr:
    """A router from the experts alone, until `calibrate` standardises its scores.

        score_e = ||C_e A_e x|| = ||B_e^T A_e x||,  C_e^T C_e = B_e B_e^T
        weights = softmax over the top k of (score - mean_e) / deviation_e / temperature

    The paper takes C_e from the QR decomposition of B_e; here it is diag(sigma) V^T of B_e's own SVD, the same but for
    a rotation that no length sees. Where all experts of a site have exactly one A, as when A was frozen, it is kept
    and applied once.

    Args:
      top_k: experts kept for each token; -1, or more than there are, keeps all.
      temperature: of the softmax, positive.
      mix: "outputs" depends, as the score does, on B_e^T A_e alone; "parameters" also on how it is factored.
      scaled: multiply an expert's score by its alpha / rank. The paper writes B A, without.

    Raises InputError for a top_k or a temperature that cannot be.
    """
    check_top_k(top_k)
    check_temperature(temperature)
    roots = {site: _roots(lora.b, score_scale(lora, scaled)) for site, lora in library.loras.items()}
    a = {site: _once(lora.a) for site, lora in library.loras.items()}
    return Seqr(a, roots, *uncalibrated(library), top_k, float(temperature), mix)


@jax.jit
def _roots(b_LERO, scale_LE):
    rank = b_LERO.shape[-2]
    unit_LERR = jnp.broadcast_to(jnp.eye(rank), (*b_LERO.shape[:2], rank, rank))
    found = low_rank_svd(Factors(unit_LERR, b_LERO))
    return (scale_LE[..., None] * found.s)[..., None] * found.v


def _once(a_LERI):
    """One A where all experts have the same."""
    return a_LERI[:, :1] if bool(jnp.all(a_LERI == a_LERI[:, :1])) else a_LERI
