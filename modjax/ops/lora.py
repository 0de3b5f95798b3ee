"""The mixture of LoRA experts: many low-rank updates of one linear map, weighted by a router.

One site of one layer: input x in R^I, experts' factors a[E,R,I] and b[E,R,O], scales s[E], weights w.

    mix="parameters"   A* = sum_e w_e A_e,  B* = sum_e w_e s_e B_e,  delta = B*^T A* x   (arXiv 2405.11157)
    mix="outputs"      delta = sum_e w_e s_e B_e^T A_e x                                  (PEFT's Arrow)

Both mixes agree when one weight is 1 and the others are 0. Per token, "parameters" never forms A* or
B*: z = sum_e w_e A_e x has R numbers, and delta = sum_e w_e s_e B_e^T z.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Mix = Literal["parameters", "outputs"]
Plan = Literal["merged", "dense"]


class LoRA(NamedTuple):
    """The factors of one site's experts; a leading layer axis L where a whole stack is meant."""

    a: jax.Array  # [..., E, R, I]
    b: jax.Array  # [..., E, R, O]


def mixture(
    x_BTI: jax.Array,
    lora: LoRA,
    scale_E: jax.Array,
    weights: jax.Array,
    mix: Mix = "parameters",
    plan: Plan | None = None,
) -> jax.Array:
    """The weighted update of one site, float32[B,T,O].

    Args:
      x_BTI: the site's input, any float dtype; matrix products run in it and accumulate in float32.
      lora: a[E,R,I] and b[E,R,O] of one layer.
      scale_E: each expert's alpha / R.
      weights: [E] for all tokens, [B,E] for each example, or [B,T,E] for each token.
      mix: whether weights act on the factors or on the experts' outputs.
      plan: "merged" folds the experts before any token is seen, and needs weights that do not depend
        on the token; "dense" runs every expert on every token. None takes the cheaper one.
    """
    plan = plan or ("dense" if weights.ndim == 3 else "merged")
    if plan == "merged":
        return _merged(x_BTI, lora, scale_E, weights, mix)
    return _dense(x_BTI, lora, scale_E, weights, mix)


def _merged(x_BTI, lora, scale_E, weights, mix):
    scaled = weights * scale_E if weights.ndim == 1 else weights * scale_E[None]
    if mix == "outputs":
        # A mean of products keeps all E * R ranks: only the weighting is folded.
        return low_rank(x_BTI, *_flatten_experts(lora.a, scaled[..., None, None] * _like(lora.b, scaled)))
    a = jnp.einsum("...e,eri->...ri", weights, lora.a)
    b = jnp.einsum("...e,ero->...ro", scaled, lora.b)
    return low_rank(x_BTI, a, b)


def _like(b_ERO, weights):
    return b_ERO if weights.ndim == 1 else b_ERO[None]


def _flatten_experts(a_ERI, b):
    return a_ERI.reshape(-1, a_ERI.shape[-1]), b.reshape(*b.shape[:-3], -1, b.shape[-1])


def low_rank(x_BTI: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """x A^T B, float32[B,T,O], with factors [R,I] and [R,O], or a pair for each example, [B,R,I] and [B,R,O]."""
    first = "bti,ri->btr" if a.ndim == 2 else "bti,bri->btr"
    second = "btr,ro->bto" if b.ndim == 2 else "btr,bro->bto"
    return _einsum(second, _einsum(first, x_BTI, a).astype(x_BTI.dtype), b)


def _dense(x_BTI, lora, scale_E, weights, mix):
    n_experts, rank, _ = lora.a.shape
    weights_BTE = jnp.broadcast_to(weights[:, None] if weights.ndim == 2 else weights, (*x_BTI.shape[:2], n_experts))
    a_SI, b_SO = _flatten_experts(lora.a, lora.b)  # S = E * R: two plain matrix products
    z_BTER = _einsum("bti,si->bts", x_BTI, a_SI).reshape(*x_BTI.shape[:2], n_experts, rank)
    if mix == "parameters":
        z_BTER = jnp.einsum("bter,bte->btr", z_BTER, weights_BTE)[:, :, None, :]
    z_BTER = (weights_BTE * scale_E[None, None])[..., None] * z_BTER
    return _einsum("bts,so->bto", z_BTER.reshape(*x_BTI.shape[:2], -1).astype(x_BTI.dtype), b_SO)


def _einsum(spec, x, factor):
    """In the dtype of the activations, accumulated in float32."""
    return jnp.einsum(spec, x, factor.astype(x.dtype), preferred_element_type=jnp.float32)
