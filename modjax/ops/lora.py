"""The mixture of LoRA experts: many low-rank updates of one linear map, weighted by a router.

One site of one layer: input x in R^I, factors a[E,R,I] and b[E,R,O], scales s[E], weights w.

    mix="parameters"   A* = sum_e w_e A_e,  B* = sum_e w_e s_e B_e,  delta = B*^T A* x   (arXiv 2405.11157)
    mix="outputs"      delta = sum_e w_e s_e B_e^T A_e x                                  (PEFT's Arrow)
    mix="heads"        like "parameters", with weights w_he for each of H equal blocks of I and O  (arXiv 2211.03831)

All three agree when one expert has weight 1 and the others have 0. Per token, "parameters" never forms A* or B*:
z = sum_e w_e A_e x has R numbers, and delta = sum_e w_e s_e B_e^T z.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from modjax.ops import chosen
from modjax.ops.kept import kept
from modjax.ops.top_k import TopK, Weights

Mix = Literal["parameters", "outputs", "heads"]
Plan = Literal["merged", "dense", "gather"]


class Factors(NamedTuple):
    """A low-rank product B^T A, or many of them along leading axes."""

    a: jax.Array  # [..., R, I]
    b: jax.Array  # [..., R, O]


class LoRA(NamedTuple):
    """The experts of one site, with the update s_e B_e^T A_e each; of a whole model with a leading layer axis L."""

    a: jax.Array  # [..., E, R, I]; [..., 1, R, I] where all experts share one A
    b: jax.Array  # [..., E, R, O]
    scale: jax.Array  # [..., E], alpha / R

    @property
    def factors(self) -> Factors:
        """A and B, a[..., E, R, I] for each expert also where they share one A."""
        return Factors(jnp.broadcast_to(self.a, (*self.b.shape[:-1], self.a.shape[-1])), self.b)


Loras = dict[str, LoRA]  # by site

# From how many experts per chosen one on "gather" is faster than "dense" for many tokens on a CPU. Processor time of a
# forward pass over that of the base model, gather and dense (1024 tokens, six sites of width 512, R 4, the top 4):
# 1.21 and 1.14 with 10 experts, 1.31 and 1.50 with 40, 1.74 and more than 5 with 256.
SPARSE = 4


def mixture(
    x_BTI: jax.Array,
    lora: LoRA,
    weights: Weights,
    mix: Mix = "parameters",
    plan: Plan | None = None,
    layer: jax.Array | None = None,
) -> jax.Array:
    """The weighted update of one site, float32[B,T,O].

    Args:
      x_BTI: the site's input, any float dtype; matrix products run in it and accumulate in float32.
      lora: the experts of one layer: a[E,R,I] or a[1,R,I], b[E,R,O], scale[E].
      weights: [E] for all tokens, [B,E] per example, or [B,T,E] per token, or those of k experts, TopK of [B,k] or
        [B,T,k]; for mix="heads" [B,H,E], where H divides I and O.
      mix: whether weights act on the factors, on the experts' outputs, or on blocks of the factors.
      plan: "merged" folds the experts before any token is read, and needs weights that do not depend on the token;
        "dense" runs every expert on every token; "gather" reads the factors of each token's own k experts, and needs
        TopK. None takes the one that measured faster.
      layer: int32, the index of the layer, if `lora` has those of all layers, a[L,E,R,I] or a[L,1,R,I] and so on.
    """
    if isinstance(weights, TopK):
        return _of_top_k(x_BTI, lora, weights, mix, plan, layer)
    lora = _of_layer(lora, layer)
    if mix == "heads":
        return _by_head(x_BTI, lora, weights)
    if (plan or _faster(lora, weights, mix)) == "merged":
        return _merged(x_BTI, lora, weights, mix)
    return _dense(x_BTI, lora, weights, mix)


def _faster(lora, weights, mix) -> Plan:
    """Merging pays where it leaves R ranks, or where it is done once for all examples.

    Outputs weighted per example keep all E * R ranks, in B copies of the experts. On a CPU that took 5 to 7 times as
    long as "dense" for one token (B 32, E 16 and 64, R 4, I = O = 576), and longer than it for 32 tokens too.
    """
    leaves_few = mix == "parameters" or lora.a.shape[0] == 1
    return "merged" if weights.ndim == 1 or (weights.ndim == 2 and leaves_few) else "dense"


def _of_top_k(x_BTI, lora, top, mix, plan, layer):
    n_experts = lora.b.shape[-3]
    if top.ids.ndim == 2:
        if plan in (None, "merged"):
            return _merged_own(x_BTI, _of_layer(lora, layer), top, mix)
        top = TopK(*(jnp.broadcast_to(own_Bk[:, None], (*x_BTI.shape[:2], own_Bk.shape[1])) for own_Bk in top))

    def gather(x_BTI, lora, top, layer):
        return _gather(x_BTI, lora, top, mix, layer)

    def dense(x_BTI, lora, top, layer):
        return _dense(x_BTI, _of_layer(lora, layer), top.dense(n_experts), mix)

    if plan == "gather" or (plan is None and top.ids.size <= n_experts):
        return gather(x_BTI, lora, top, layer)
    if plan == "dense" or n_experts < SPARSE * top.ids.shape[-1]:
        return dense(x_BTI, lora, top, layer)
    return jax.lax.platform_dependent(x_BTI, lora, top, layer, cpu=gather, default=dense)


def _of_layer(lora, layer):
    """The factors of one layer."""
    if layer is None:
        return lora
    return LoRA(*(jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False) for leaf in lora))


def _merged_own(x_BTI, lora, top, mix):
    """Each example's k experts, folded as a library of its own."""

    def one(x_TI, ids_k, weights_k):
        a_kRI = lora.a if lora.a.shape[0] == 1 else lora.a[ids_k]
        return _merged(x_TI[None], LoRA(a_kRI, lora.b[ids_k], lora.scale[ids_k]), weights_k, mix)[0]

    return jax.vmap(one)(x_BTI, *top)


def _gather(x_BTI, lora, top, mix, layer):
    """Each token's own k experts, with the rows of their factors read in place, also from those of all layers."""
    n_experts, rank = lora.b.shape[-3:-1]
    ids_nk, weights_nk = (own_BTk.reshape(-1, own_BTk.shape[-1]) for own_BTk in top)
    if layer is not None:
        ids_nk = ids_nk + layer * n_experts
    rows_nS = (ids_nk[..., None] * rank + jnp.arange(rank)[None, None]).reshape(len(ids_nk), -1)
    x_nI = x_BTI.reshape(len(ids_nk), -1)
    shared = lora.a.shape[-3] == 1
    if shared:
        z_nkR = _einsum("ni,ri->nr", x_nI, _of_layer(lora, layer).a[0])[:, None]
    else:
        z_nkR = chosen.products(x_nI, _rows(lora.a), rows_nS).reshape(*ids_nk.shape, rank)
    if mix == "parameters":
        z_nkR = jnp.sum(weights_nk[..., None] * z_nkR, axis=1, keepdims=True)
    z_nkR = (weights_nk * lora.scale.reshape(-1)[ids_nk])[..., None] * z_nkR
    out_nO = chosen.weighted_sum(z_nkR.reshape(rows_nS.shape).astype(x_BTI.dtype), _rows(lora.b), rows_nS)
    return out_nO.reshape(*x_BTI.shape[:2], -1)


def _rows(factors):
    """[..., R, X] as [rows, X]."""
    return factors.reshape(-1, factors.shape[-1])


def _merged(x_BTI, lora, weights, mix):
    scaled = _scaled(weights, lora)
    if mix == "parameters":
        return low_rank(x_BTI, _summed(weights, lora.a), _summed(scaled, lora.b))
    if lora.a.shape[0] == 1:
        return low_rank(x_BTI, lora.a[0], _summed(scaled, lora.b))
    # A mean of products keeps all E * R ranks: only the weighting is folded.
    b = scaled[..., None, None] * (lora.b if weights.ndim == 1 else lora.b[None])
    return low_rank(x_BTI, _flat(lora.a), _flat(b))


def _by_head(x_BTI, lora, weights_BHE):
    n_heads = weights_BHE.shape[1]

    def mixed(weights_BHE, factor_ERX):
        blocks_ERHX = factor_ERX.reshape(*factor_ERX.shape[:2], n_heads, -1)
        mixed_BRHX = jnp.einsum("bhe,erhx->brhx", _over(weights_BHE, blocks_ERHX), blocks_ERHX)
        return mixed_BRHX.reshape(*mixed_BRHX.shape[:2], -1)

    return low_rank(x_BTI, mixed(weights_BHE, lora.a), mixed(_scaled(weights_BHE, lora), lora.b))


def _scaled(weights, lora):
    return weights * lora.scale.reshape(*[1] * (weights.ndim - 1), -1)


def _summed(weights, factor_ERX):
    """sum_e w_e F_e, [..., R, X]."""
    return jnp.einsum("...e,erx->...rx", _over(weights, factor_ERX), factor_ERX)


def _over(weights, factor_ERX):
    """The weights of the factors held: their sum where one factor serves all experts."""
    return weights.sum(axis=-1, keepdims=True) if factor_ERX.shape[0] == 1 else weights


def _flat(factors):
    """[..., E, R, X] as [..., E * R, X]."""
    return factors.reshape(*factors.shape[:-3], -1, factors.shape[-1])


def low_rank(x_BTI: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """x A^T B, float32[B,T,O], with factors [R,I] and [R,O], or one pair per example, [B,R,I] and [B,R,O]."""
    first = "bti,ri->btr" if a.ndim == 2 else "bti,bri->btr"
    second = "btr,ro->bto" if b.ndim == 2 else "btr,bro->bto"
    return _einsum(second, kept(_einsum(first, x_BTI, a).astype(x_BTI.dtype)), b)


def _dense(x_BTI, lora, weights, mix):
    n_experts = lora.b.shape[0]
    weights_BTE = jnp.broadcast_to(weights[:, None] if weights.ndim == 2 else weights, (*x_BTI.shape[:2], n_experts))
    # S = E * R: two plain matrix products.
    z_BTS = _einsum("bti,si->bts", x_BTI, _flat(lora.a))
    z_BTER = z_BTS.reshape(*x_BTI.shape[:2], *lora.a.shape[:2])
    if mix == "parameters":
        z_BTER = jnp.einsum("bter,bte->btr", z_BTER, _over(weights_BTE, lora.a))[:, :, None, :]
    z_BTER = _scaled(weights_BTE, lora)[..., None] * z_BTER
    return _einsum("bts,so->bto", z_BTER.reshape(*x_BTI.shape[:2], -1).astype(x_BTI.dtype), _flat(lora.b))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum(formula, x, factor):
    """In the dtype of the activations, accumulated in float32.

    So is the gradient of the factor: rounded to that dtype, the parts from all devices would be summed in it.
    """
    return jnp.einsum(formula, x, factor.astype(x.dtype), preferred_element_type=jnp.float32)


def _forward(formula, x, factor):
    return _einsum(formula, x, factor), (x, factor)


def _backward(formula, read, g):
    x, factor = read
    (of_x, of_factor), of_g = formula.split("->")[0].split(","), formula.split("->")[1]
    dx = jnp.einsum(f"{of_g},{of_factor}->{of_x}", g, factor.astype(x.dtype), preferred_element_type=jnp.float32)
    dfactor = jnp.einsum(f"{of_x},{of_g}->{of_factor}", x, g, preferred_element_type=jnp.float32)
    return dx.astype(x.dtype), dfactor.astype(factor.dtype)


_einsum.defvjp(_forward, _backward)
