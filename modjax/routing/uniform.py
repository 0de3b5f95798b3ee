"""Uniform routing (mu): equal weights for all experts."""

import jax.numpy as jnp

from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import Router, static


class Uniform(Router):
    n_experts: int = static()
    mix: Mix = static("parameters")

    def __call__(self, site, x_BTI, context):
        return jnp.full((self.n_experts,), 1 / self.n_experts, jnp.float32)


def uniform(library: Library, mix: Mix = "parameters") -> Uniform:
    """w_e = 1/E, float32[E].

    mix="parameters" is the mean of B times the mean of A (the default of the reference code), "outputs" the mean of the
    products B^T A.
    """
    return Uniform(len(library), mix)
