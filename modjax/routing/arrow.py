"""Arrow routing (arXiv 2405.11157, section 3.2): each token goes to the experts with the most aligned prototypes.

The prototype of an expert at a site is the unit input direction that its update B^T A amplifies most: its first right
singular vector. An expert amplifies inputs like those it was trained on, so |x . p_e| ranks the experts without any
training of the router.
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from modjax.arguments import known, number
from modjax.experts.failed import silenced
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.ops.top_k import Weights
from modjax.routing.base import Router, checked_mix, per_site, static
from modjax.routing.norm import Norm, check_norm, normed
from modjax.routing.prototypes import PrototypeOptions, prototypes_of
from modjax.routing.top_k import checked_top_k, heard, positive_temperature, top_k_softmax, without_silent


class Arrow(Router):
    prototypes: dict[str, jax.Array] = per_site("LEI")  # float32
    top_k: int = static(4)
    temperature: float = static(1.0)
    mix: Mix = static("parameters")
    input_norm: Norm = static("none")

    def prepared(self):
        return _Prepared(self, jax.tree.map(heard, self.prototypes))

    def __call__(self, site, x_BTI, context):
        return self.weights(site, x_BTI, heard(self.prototypes[site]))

    def weights(self, site: str, x_BTI: jax.Array, heard_E: jax.Array) -> Weights:
        prototype_EI = self.prototypes[site]
        score_BTE = jnp.abs(jnp.einsum("bti,ei->bte", normed(x_BTI, self.input_norm), prototype_EI))
        temperature = positive_temperature(self.temperature, prototype_EI.shape[-1])
        return top_k_softmax(without_silent(score_BTE, heard_E), self.top_k, temperature)


class _Prepared(NamedTuple):
    """Reading all prototypes for what is heard would cost a tenth of the time of a new token, with 256 experts."""

    router: Arrow
    heard: dict[str, jax.Array]  # bool[L,E]

    @property
    def mix(self) -> Mix:
        return self.router.mix

    def __call__(self, site, x_BTI, context):
        return self.router.weights(site, x_BTI, self.heard[site])


def arrow(
    library: Library,
    top_k: int = 4,
    temperature: float = 1.0,
    mix: Mix = "parameters",
    input_norm: Norm = "none",
    failed: bool = False,
    **options: Unpack[PrototypeOptions],
) -> Arrow:
    """A router built from the library alone.

        score_e = |x . p_e|,  weights = softmax over the top k of score / temperature

    The absolute value is taken because the sign of a singular vector is arbitrary. Where an expert's update is 0 it has
    no prototype, and no weight.

    `arrow(library, top_k=k, temperature=t, mix="outputs", prototypes="power", seed=s)` is the router of
    `peft.ArrowConfig(top_k=k, router_temperature=t, rng_seed=s)`, except that PEFT gives an expert whose update is 0
    the score 0, with which it gets weight where fewer than k other experts are there.

    Args:
      top_k: experts kept per token; -1, or more than there are, keeps all.
      temperature: of the softmax; 0 or less means sqrt(I).
      mix: "parameters" as in the paper, "outputs" as in PEFT.
      input_norm: normalisation of the site's input before the product: "none", "unit" length, or "layernorm".
      failed: whether experts whose training failed may be chosen too; by default they are left out, with a warning.
      options: for the prototypes, see `modjax.routing.prototypes.prototypes_of`: prototypes, seed, of, model, tie,
        length, scaled, prototype_norm.

    Raises InputError for an invalid setting, and for tied sites that do not share A.
    """
    top_k, temperature, mix = checked_top_k(top_k), float(number("temperature", temperature)), checked_mix(mix)
    check_norm("input_norm", input_norm)
    known(options, PrototypeOptions.__annotations__, "arrow")
    return Arrow(prototypes_of(silenced(library, failed), **options), top_k, temperature, mix, input_norm)
