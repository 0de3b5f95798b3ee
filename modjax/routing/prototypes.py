"""Prototypes: the input direction that an expert amplifies most, found in one of three ways.

All take the factors of one site's experts, float32 a[L,E,R,I] and b[L,E,R,O], A once for all ([L,1,R,I]) where it is
shared, and give unit vectors float32[L,E,I] with what they are amplified by, float32[L,E].
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.experts.library import Library
from modjax.experts.tie import check_factors, check_sites, firsts
from modjax.models.layers import Linear
from modjax.ops.linalg import leading_of_sum, low_rank_svd
from modjax.ops.lora import LoRA

Leading = tuple[jax.Array, jax.Array]


@jax.jit
def exact(lora: LoRA) -> Leading:
    """The first right singular vector of each B^T A, and its singular value."""
    found = low_rank_svd(lora)
    return found.v[..., 0, :], found.s[..., 0]


def iterated(lora: LoRA, start_I: np.ndarray) -> Leading:
    """Fifteen times v <- A^T (B^T B) A v, normed, all experts from one start, as PEFT does; amplified by ||B^T A v||.

    In float64, on the host: PEFT computes in float32, and where iterations have not converged they multiply what is
    rounded. So PEFT's own rounding is all that the two differ by.
    """
    a_LERI, b_LERO = (np.asarray(factor, np.float64) for factor in lora)
    gram_LERR = b_LERO @ np.swapaxes(b_LERO, -1, -2)
    v_LEI1 = np.broadcast_to(np.float64(start_I)[:, None], (*b_LERO.shape[:2], len(start_I), 1))
    for _ in range(15):
        v_LEI1 = np.swapaxes(a_LERI, -1, -2) @ (gram_LERR @ (a_LERI @ v_LEI1))
        v_LEI1 = v_LEI1 / (np.linalg.norm(v_LEI1, axis=-2, keepdims=True) + 1e-8)
    out_LEO1 = np.swapaxes(b_LERO, -1, -2) @ (a_LERI @ v_LEI1)
    return jnp.float32(v_LEI1[..., 0]), jnp.float32(np.linalg.norm(out_LEO1[..., 0], axis=-1))


@jax.jit
def with_base(lora: LoRA, scale_E: jax.Array, maps: tuple[Linear, ...]) -> Leading:
    """The first right singular vector of W0 + s_e B_e^T A_e, and its singular value; W0 the maps' side by side.

    One layer at a time, in float32; quantised kernels are decoded there. See `modjax.ops.linalg.leading_of_sum`.
    """

    def one(layer):
        (a_ERI, b_ERO), maps = layer
        kernel_IO = jnp.concatenate([linear.matrix.astype(jnp.float32) for linear in maps], axis=-1)
        return leading_of_sum(kernel_IO, LoRA(a_ERI, scale_E[:, None, None] * b_ERO))

    return jax.lax.map(one, (lora, maps))


def tied(library: Library, tie: Sequence[Sequence[str]]) -> dict[tuple[str, ...], LoRA]:
    """{sites: their factors}, sites of one tie together: their one A, and their B side by side along O.

    Raises InputError for a site that the library does not have, one that is tied twice, and for A that differ.
    """
    check_sites(tie, library.sites)
    check_factors(tie, library.loras)
    named = firsts(tie)
    groups = [tuple(sites) for sites in tie if sites] + [(site,) for site in library.sites if site not in named]
    return {sites: _joined([library.loras[site] for site in sites]) for sites in groups}


def _joined(loras):
    return LoRA(loras[0].a, jnp.concatenate([lora.b for lora in loras], axis=-1))
