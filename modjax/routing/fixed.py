"""Weights over experts that neither tokens nor examples change."""

import jax

from modjax.ops.lora import Mix
from modjax.routing.base import Router, per_site, static


class Fixed(Router):
    """The same weights for every token, of each layer and site its own."""

    weights: dict[str, jax.Array] = per_site("LE")
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        return self.weights[site]
