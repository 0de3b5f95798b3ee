"""Prototypes of experts: the input direction that an expert's update amplifies most, computed in one of three ways.

`exact`, `iterated` and `with_base` take the experts of one site, a float32[L,E,R,I] (or [L,1,R,I] if they share A) and
b float32[L,E,R,O], and return unit vectors float32[L,E,I] and the amplification along each, float32[L,E].
"""

import importlib
from typing import Literal, TypedDict, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.experts.tie import Tie, check_factors, check_sites, checked_tie, firsts
from modjax.models.layers import Linear
from modjax.ops.linalg import leading, leading_of_sum
from modjax.ops.lora import Factors, LoRA
from modjax.routing.base import BaseModel
from modjax.routing.norm import Norm, check_norm, normed

Prototypes = Literal["svd", "power"]
Of = Literal["update", "weights"]
Length = Literal["unit", "singular"]
Leading = tuple[jax.Array, jax.Array]


def prototypes_of(
    library: Library,
    prototypes: Prototypes = "svd",
    seed: int = 0,
    of: Of = "update",
    model: BaseModel | None = None,
    tie: Tie = (),
    length: Length = "unit",
    scaled: bool = False,
    prototype_norm: Norm = "none",
) -> dict[str, jax.Array]:
    """{site: float32[L,E,I]}, the prototype of each expert at each site and layer.

    Args:
      prototypes: "svd" is the exact singular vector; "power" is PEFT's estimate of it, 15 power iterations from a
        random start, which do not converge if two singular values are close. It needs PyTorch, for PEFT's start vector.
      seed: of PEFT's start vector, its `rng_seed`; only for "power".
      of: the matrix of the singular vector: the "update" B^T A, or the expert's whole "weights" W0 + alpha / rank B^T
        A, which needs the model and prototypes="svd".
      model: the base model, for `of="weights"`.
      tie: groups of sites that share one A, and so get one prototype, for their B concatenated along O; the paper's
        Phi-2 experts share one A at (("attn.q", "attn.k", "attn.v"),).
      length: the length of a prototype, "unit" or its "singular" value. (The reference code multiplies the prototype of
        an update by the square of the singular value.)
      scaled: multiply it by the expert's alpha / rank; not with of="weights", which already contain it.
      prototype_norm: a final normalisation, which overrides the length: "none", "unit" or "layernorm".

    A prototype is 0 where the expert's update is 0, at each site by itself also where sites are tied.

    Raises InputError for an invalid setting, and for tied sites that do not share A.
    """
    seed = arguments.seed("seed", seed)
    arguments.instance("library", library, Library)
    arguments.optional(arguments.instance)("model", model, BaseModel)
    tie = checked_tie(tie)
    _check(prototypes, of, model, length, scaled)
    check_norm("prototype_norm", prototype_norm)
    found = {}
    for sites, lora in tied(library, tie).items():
        if of == "weights":
            vector_LEI, value_LE = with_base(lora, _maps(model, library, sites))
        elif prototypes == "power":
            vector_LEI, value_LE = iterated(lora, peft_start(lora.a.shape[-1], seed))
        else:
            vector_LEI, value_LE = exact(lora)
        length_LE = score_scale(lora, scaled) * (value_LE if length == "singular" else jnp.ones_like(value_LE))
        prototype_LEI = normed(length_LE[..., None] * vector_LEI, prototype_norm)
        known = of == "update" and prototypes == "svd" and len(sites) == 1
        for site in sites:
            heard_LE = (lora.scale != 0) & (value_LE > 0) if known else has_direction(library.loras[site])
            found[site] = jnp.where(heard_LE[..., None], prototype_LEI, 0)
    return found


class PrototypeOptions(TypedDict, total=False):
    """The arguments of `prototypes_of` after the library, for functions that pass them on."""

    prototypes: Prototypes
    seed: int
    of: Of
    model: BaseModel | None
    tie: Tie
    length: Length
    scaled: bool
    prototype_norm: Norm


def _maps(model, library, sites):
    model.check(library)
    return tuple(model.params.blocks.linear(site) for site in sites)


def _check(prototypes, of, model, length, scaled):
    for name, value, kind in (("prototypes", prototypes, Prototypes), ("of", of, Of), ("length", length, Length)):
        arguments.choice(name, value, get_args(kind))
    if of == "weights" and (model is None or prototypes == "power" or scaled):
        raise InputError(
            "of='weights' needs model=, the base model, prototypes='svd', and scaled=False, because the weights "
            "already contain alpha / rank"
        )


@jax.jit
def has_direction(lora: LoRA) -> jax.Array:
    """Whether each expert's update s_e B_e^T A_e is not 0, bool[L,E]: its first singular value is above 0."""
    return (lora.scale != 0) & (exact(lora)[1] > 0)


@jax.jit
def exact(lora: LoRA) -> Leading:
    """The first right singular vector of each B^T A, and its singular value; one layer at a time."""
    return jax.lax.map(leading, lora.factors)


def peft_start(width: int, seed: int) -> np.ndarray:
    """float32[I], the start vector of PEFT's power iterations: PyTorch's normal numbers of a seed, on the CPU.

    Raises InputError if PyTorch is not installed.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise InputError("prototypes='power' needs PyTorch for PEFT's start vector; install torch") from error
    return torch.randn(width, generator=torch.Generator().manual_seed(seed)).numpy()


def iterated(lora: LoRA, start_I: np.ndarray) -> Leading:
    """Fifteen iterations v <- A^T (B B^T) A v, normalised, as in PEFT; the value is ||B^T A v||.

    All experts have the same start. In float64 with NumPy: PEFT computes in float32, and iterations that have not
    converged amplify rounding errors, so the results differ from PEFT's only by the rounding errors of PEFT.
    """
    a_LERI, b_LERO = (np.asarray(factor, np.float64) for factor in (lora.a, lora.b))
    gram_LERR = b_LERO @ np.swapaxes(b_LERO, -1, -2)
    v_LEI1 = np.broadcast_to(np.float64(start_I)[:, None], (*b_LERO.shape[:2], len(start_I), 1))
    for _ in range(15):
        v_LEI1 = np.swapaxes(a_LERI, -1, -2) @ (gram_LERR @ (a_LERI @ v_LEI1))
        v_LEI1 = v_LEI1 / (np.linalg.norm(v_LEI1, axis=-2, keepdims=True) + 1e-8)
    out_LEO1 = np.swapaxes(b_LERO, -1, -2) @ (a_LERI @ v_LEI1)
    return jnp.float32(v_LEI1[..., 0]), jnp.float32(np.linalg.norm(out_LEO1[..., 0], axis=-1))


@jax.jit
def with_base(lora: LoRA, maps: tuple[Linear, ...]) -> Leading:
    """The first right singular vector of W0 + s_e B_e^T A_e, and its singular value.

    W0 is the kernels of the maps, concatenated along O. One layer at a time, in float32; quantised kernels are decoded
    one layer at a time. See `modjax.ops.linalg.leading_of_sum`.
    """

    def one(layer):
        (a_ERI, b_ERO, scale_E), maps = layer
        kernel_IO = jnp.concatenate([linear.matrix.astype(jnp.float32) for linear in maps], axis=-1)
        return leading_of_sum(kernel_IO, Factors(a_ERI, scale_E[:, None, None] * b_ERO))

    return jax.lax.map(one, (lora, maps))


def tied(library: Library, tie: Tie) -> dict[tuple[str, ...], LoRA]:
    """{sites: their experts}; tied sites are one entry, with their shared A and their B concatenated along O.

    Raises InputError for a tied site that the library does not have or that is tied twice, and for different A.
    """
    check_sites(tie, library.sites)
    check_factors(tie, library.loras)
    named = firsts(tie)
    groups = [tuple(sites) for sites in tie if sites] + [(site,) for site in library.sites if site not in named]
    return {sites: _joined([library.loras[site] for site in sites]) for sites in groups}


def _joined(loras):
    """The experts of tied sites as one site with the first site's scale, or 1 where that is 0; B carry the ratios."""
    first, *others = loras
    if not others:
        return first
    scale_LE = jnp.where(first.scale == 0, 1, first.scale)
    b = [lora.b * (lora.scale / scale_LE)[..., None, None] for lora in loras]
    return first._replace(b=jnp.concatenate(b, axis=-1), scale=scale_LE)


def score_scale(lora: LoRA, scaled: bool) -> jax.Array:
    """The factor of each expert's score, float32[L,E]: its scale if `scaled`, else 1; 0 where its scale is 0."""
    return lora.scale if arguments.flag("scaled", scaled) else jnp.float32(lora.scale != 0)
