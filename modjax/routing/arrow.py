"""Arrow routing (arXiv 2405.11157, section 3.2): each token goes to the experts that would act on it most.

An expert's prototype at a site is the unit input direction that its update B^T A amplifies most, its first
right singular vector. Tokens that resemble what an expert was trained on are amplified by it, so |x . p_e|
ranks the experts without any training.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.linalg import low_rank_svd
from modjax.ops.lora import LoRA, Mix
from modjax.routing.base import Router, per_site, static, top_k_softmax

Prototypes = Literal["svd", "power"]


class Arrow(Router):
    prototypes: dict[str, jax.Array] = per_site("LEI")  # float32
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("parameters")

    def __call__(self, site, x_BTI, context):
        prototype_EI = self.prototypes[site]
        score_BTE = jnp.abs(jnp.einsum("bti,ei->bte", x_BTI.astype(jnp.float32), prototype_EI))
        temperature = self.temperature if self.temperature > 0 else prototype_EI.shape[-1] ** 0.5
        return top_k_softmax(score_BTE, self.top_k, temperature)


def arrow(
    library: Library,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "parameters",
    prototypes: Prototypes = "svd",
    seed: int = 0,
) -> Arrow:
    """A router from the experts alone.

        score_e = |x . p_e|,  weights = softmax over the top k of score / temperature

    The absolute value, because a singular vector has no sign.

    `arrow(library, top_k=k, temperature=t, mix="outputs", prototypes="power", seed=s)` is what
    `peft.ArrowConfig(top_k=k, router_temperature=t, rng_seed=s)` routes by.

    Args:
      top_k: experts kept for each token; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      mix: "parameters" as in the paper, "outputs" as in PEFT.
      prototypes: "svd" is the exact singular vector; "power" is PEFT's estimate of it, 15 power iterations from a
        random start, which have not converged where two singular values are close.
      seed: of PEFT's start vector, its `rng_seed`; from 0 up to 2^32 - 1. Only "power" has a start.
    """
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")
    if prototypes not in ("svd", "power"):
        raise InputError(f"prototypes={prototypes!r}: expected 'svd' or 'power'")
    if prototypes == "svd":
        found = {site: _leading(lora) for site, lora in library.loras.items()}
    else:
        found = {site: _iterated(lora, torch_normal(lora.a.shape[-1], seed)) for site, lora in library.loras.items()}
    return Arrow(found, top_k, float(temperature), mix)


def torch_normal(size: int, seed: int) -> np.ndarray:
    """float32[size], the values of `torch.randn(size)` on the CPU after `manual_seed(seed)`, to a rounding or two.

    PyTorch draws float32 uniforms from the low 24 bits of a Mersenne twister (MT19937, seeded as in its reference
    code), and turns each run of 16 into normals by Box-Muller, the first eight giving radii and the last eight
    angles. Where 16 does not divide the size, the last 16 values are drawn anew. Fewer than 16 are made another way.
    Raises InputError for such a size and for a seed outside 0..2^32 - 1.
    """
    if size < 16 or not 0 <= seed < 2**32:
        raise InputError(f"{size} values from seed {seed}: expected at least 16, and a seed from 0 up to 2^32 - 1")
    twister = np.random.RandomState(seed)
    whole = size // 16 * 16
    uniform_n = _uniform(twister, size)
    normal_n = np.empty(size, np.float32)
    normal_n[:whole] = _box_muller(uniform_n[:whole])
    if whole < size:
        normal_n[-16:] = _box_muller(_uniform(twister, 16))
    return normal_n


def _uniform(twister, size):
    bits_n = twister.randint(0, 2**32, size, np.uint32)
    return (bits_n & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)


def _box_muller(uniform_n):
    first_m8, second_m8 = np.moveaxis(uniform_n.reshape(-1, 2, 8), 1, 0)
    radius_m8 = np.sqrt(np.float32(-2) * np.log(np.float32(1) - first_m8))
    angle_m8 = np.float32(2 * np.pi) * second_m8
    return np.stack([radius_m8 * np.cos(angle_m8), radius_m8 * np.sin(angle_m8)], axis=1).reshape(-1)


@jax.jit
def _leading(lora: LoRA):
    """float32[L,E,I]: the first right singular vector of each B^T A."""
    return low_rank_svd(lora).v[..., 0, :]


@jax.jit
def _iterated(lora: LoRA, start_I):
    """float32[L,E,I]: fifteen times v <- A^T (B^T B) A v, normed, all experts from one start, as PEFT does."""

    def normed(v_LEI):
        return v_LEI / (jnp.linalg.norm(v_LEI, axis=-1, keepdims=True) + 1e-8)

    def step(_, v_LEI):
        z_LER = jnp.einsum("leri,lei->ler", lora.a, v_LEI)
        return normed(jnp.einsum("leri,ler->lei", lora.a, jnp.einsum("lers,les->ler", gram_LERR, z_LER)))

    with jax.default_matmul_precision("highest"):
        gram_LERR = jnp.einsum("lero,leso->lers", lora.b, lora.b)
        v_LEI = jnp.broadcast_to(start_I[None, None], (*lora.a.shape[:2], start_I.shape[0]))
        return jax.lax.fori_loop(0, 15, step, normed(v_LEI))
