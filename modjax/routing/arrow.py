"""Arrow routing (arXiv 2405.11157, section 3.2): each token goes to the experts that would act on it most.

An expert's prototype at a site is the unit input direction that its update B^T A amplifies most, its first
right singular vector. Tokens that resemble what an expert was trained on are amplified by it, so |x . p_e|
ranks the experts without any training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import BaseModel, Router, per_site, static, top_k_softmax
from modjax.routing.norm import Norm, check_norm, normed
from modjax.routing.prototypes import exact, iterated, tied, with_base
from modjax.routing.torch_normal import torch_normal

Prototypes = Literal["svd", "power"]
Of = Literal["update", "weights"]
Length = Literal["unit", "singular"]


class Arrow(Router):
    prototypes: dict[str, jax.Array] = per_site("LEI")  # float32
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("parameters")
    input_norm: Norm = static("none")

    def __call__(self, site, x_BTI, context):
        prototype_EI = self.prototypes[site]
        score_BTE = jnp.abs(jnp.einsum("bti,ei->bte", normed(x_BTI, self.input_norm), prototype_EI))
        temperature = self.temperature if self.temperature > 0 else prototype_EI.shape[-1] ** 0.5
        return top_k_softmax(score_BTE, self.top_k, temperature)


def arrow(
    library: Library,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "parameters",
    prototypes: Prototypes = "svd",
    seed: int = 0,
    of: Of = "update",
    model: BaseModel | None = None,
    tie: Sequence[Sequence[str]] = (),
    length: Length = "unit",
    scaled: bool = False,
    input_norm: Norm = "none",
    prototype_norm: Norm = "none",
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
      of: what the prototype is a singular vector of: the "update" B^T A, or the expert's whole "weights"
        W0 + alpha / rank B^T A, which needs the model and is exact ("svd") alone.
      model: the base model, for `of="weights"`.
      tie: groups of sites that share one A and so one prototype, that of their B side by side; the paper's Phi-2
        experts have one A for (("attn.q", "attn.k", "attn.v"),).
      length: of a prototype: "unit", or the "singular" value that it belongs to. (The reference code multiplies an
        update's by the square of the singular value.)
      scaled: multiply an expert's score by its alpha / rank, as in `spectr`; "weights" have it in them.
      input_norm: of the site's input before it is compared: as it is; divided by its length, "unit"; "layernorm".
      prototype_norm: of the prototypes, whose length it undoes, likewise.

    Raises InputError for a setting that cannot be, and for tied sites that do not share A.
    """
    _check(top_k, prototypes, of, model, length, scaled)
    check_norm("input_norm", input_norm)
    check_norm("prototype_norm", prototype_norm)
    scale_E = library.scale if scaled else jnp.ones_like(library.scale)
    found = {}
    for sites, lora in tied(library, tie).items():
        if of == "weights":
            vector_LEI, value_LE = with_base(lora, library.scale, _maps(model, library, sites))
        elif prototypes == "power":
            vector_LEI, value_LE = iterated(lora, torch_normal(lora.a.shape[-1], seed))
        else:
            vector_LEI, value_LE = exact(lora)
        factor_LE = scale_E[None] * (value_LE if length == "singular" else jnp.ones_like(value_LE))
        found |= dict.fromkeys(sites, normed(factor_LE[..., None] * vector_LEI, prototype_norm))
    return Arrow(found, top_k, float(temperature), mix, input_norm)


def _maps(model, library, sites):
    model.check(library)
    return tuple(model.params.blocks.linear(site) for site in sites)


def _check(top_k, prototypes, of, model, length, scaled):
    if top_k == 0 or top_k < -1:
        raise InputError(f"top_k={top_k}: expected a positive number of experts, or -1 for all")
    for name, value, kind in (("prototypes", prototypes, Prototypes), ("of", of, Of), ("length", length, Length)):
        if value not in get_args(kind):
            raise InputError(f"{name}={value!r}: expected {' or '.join(map(repr, get_args(kind)))}")
    if of == "weights" and (model is None or prototypes == "power" or scaled):
        raise InputError(
            "of='weights' needs model=, the base model; it goes with prototypes='svd' and without scaled, for alpha / "
            "rank is in the weights already"
        )
