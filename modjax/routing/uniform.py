"""Uniform routing (mu): equal weights for all experts."""

import jax.numpy as jnp
import numpy as np

from modjax.experts.failed import left_out
from modjax.experts.library import Library
from modjax.ops.lora import Mix
from modjax.routing.base import Router, checked_mix, static


class Uniform(Router):
    n_experts: int = static()
    mix: Mix = static("parameters")
    left_out: tuple[int, ...] = static(())  # indices of experts of weight 0

    def __post_init__(self):
        object.__setattr__(self, "left_out", tuple(self.left_out))  # a file gives a list, which has no hash

    def __call__(self, site, x_BTI, context):
        weights_E = np.full(self.n_experts, 1 / (self.n_experts - len(self.left_out)), np.float32)
        weights_E[list(self.left_out)] = 0
        return jnp.asarray(weights_E)


def uniform(library: Library, mix: Mix = "parameters", failed: bool = False) -> Uniform:
    """w_e = 1/E, float32[E].

    Args:
      mix: "parameters" is the mean of B times the mean of A (the default of the reference code), "outputs" the mean of
        the products B^T A.
      failed: whether experts whose training failed count too; by default they are left out, with a warning.
    """
    return Uniform(len(library), checked_mix(mix), left_out(library, failed))
