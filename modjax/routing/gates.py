"""PhatGoose routing (arXiv 2402.05859): tokens go to experts by learned gates, each trained with its expert alone."""

import jax
import jax.numpy as jnp

from modjax.ops.lora import Mix
from modjax.routing.base import Router, per_site, static
from modjax.routing.norm import normed
from modjax.routing.top_k import heard, positive_temperature, top_k_softmax, without_silent


class PhatGoose(Router):
    """A router of trained gates; `modjax.routing.phatgoose` trains them."""

    gates: dict[str, jax.Array] = per_site("LEI")  # float32, as trained
    top_k: int = static(2)
    temperature: float = static(-1.0)
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        gate_EI = self.gates[site]
        score_BTE = jnp.einsum("bti,ei->bte", normed(x_BTI, "layernorm"), normed(gate_EI, "layernorm"))
        temperature = positive_temperature(self.temperature, gate_EI.shape[-1])
        return top_k_softmax(without_silent(score_BTE, heard(gate_EI)), self.top_k, temperature)
