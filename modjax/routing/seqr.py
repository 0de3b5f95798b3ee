"""SEQR routing (arXiv 2509.18093): SpectR's score with only R x R numbers per expert, for experts that share one A.

The norm of B_e^T z equals that of C_e z for any root C_e[R, R] with C_e^T C_e = B_e B_e^T. With one A for all experts,
z = A x is computed once.
"""

import jax
import jax.numpy as jnp

from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import Factors, Mix
from modjax.routing.base import Router, checked_mix, per_site, static
from modjax.routing.calibration import standardised, uncalibrated
from modjax.routing.prototypes import has_direction, score_scale
from modjax.routing.top_k import checked_temperature, checked_top_k, heard, top_k_softmax, without_silent


class Seqr(Router):
    a: dict[str, jax.Array] = per_site("LSRI")  # float32; S is 1 if all experts share one A, else E
    roots: dict[str, jax.Array] = per_site("LEQR")  # float32, Q = R, the longest row first
    mean: dict[str, jax.Array] = per_site("LE")  # float32, of the raw score
    deviation: dict[str, jax.Array] = per_site("LE")
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        score_BTE = standardised(self.raw(site, x_BTI), self.mean[site], self.deviation[site])
        return top_k_softmax(without_silent(score_BTE, heard(self.roots[site][:, 0])), self.top_k, self.temperature)

    def raw(self, site: str, x_BTI: jax.Array) -> jax.Array:
        """Scores before they are standardised, float32[B,T,E]."""
        z_BTSR = jnp.einsum("bti,sri->btsr", x_BTI.astype(jnp.float32), self.a[site])
        if z_BTSR.shape[2] == 1:
            turned_BTEQ = jnp.einsum("btr,eqr->bteq", z_BTSR[:, :, 0], self.roots[site])
        else:
            turned_BTEQ = jnp.einsum("bter,eqr->bteq", z_BTSR, self.roots[site])
        return jnp.linalg.norm(turned_BTEQ, axis=-1)


def seqr(
    library: Library,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "outputs",
    scaled: bool = False,
    failed: bool = False,
) -> Seqr:
    """A router built from the library alone; `calibrate` can standardise its scores.

        score_e = ||C_e A_e x|| = ||B_e^T A_e x||,  C_e^T C_e = B_e B_e^T
        weights = softmax over the top k of (score - mean_e) / deviation_e / temperature

    The paper takes C_e from the QR decomposition of B_e; here it is diag(sigma) V^T from the SVD of B_e, which differs
    by a rotation and so gives the same norm. If all experts of a site have the same A, because it was frozen in
    training, it is stored and applied once.

    Args:
      top_k: experts kept per token; -1, or more than there are, keeps all.
      temperature: of the softmax, positive.
      mix: "outputs" depends, like the score, only on B_e^T A_e; "parameters" also on its factorisation.
      scaled: multiply an expert's score by its alpha / rank; in the paper it is not.
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.

    Raises InputError for an invalid setting.
    """
    top_k, temperature, mix = checked_top_k(top_k), checked_temperature(temperature), checked_mix(mix)
    library = silenced(library, failed)
    roots = {site: _roots(lora, score_scale(lora, scaled)) for site, lora in library.loras.items()}
    a = {site: _once(lora.a) for site, lora in library.loras.items()}
    return Seqr(a, roots, *uncalibrated(library), top_k, temperature, mix)


@jax.jit
def _roots(lora, scale_LE):
    rank = lora.b.shape[-2]
    unit_LERR = jnp.broadcast_to(jnp.eye(rank), (*lora.b.shape[:2], rank, rank))
    found = low_rank_svd(Factors(unit_LERR, lora.b))
    length_LER = jnp.where(has_direction(lora)[..., None], scale_LE[..., None] * found.s, 0)
    return length_LER[..., None] * found.v


def _once(a_LERI):
    """A with an expert axis of 1 if all experts have the same, else unchanged."""
    return a_LERI[:, :1] if bool(jnp.all(a_LERI == a_LERI[:, :1])) else a_LERI
