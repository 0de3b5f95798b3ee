"""Fixed routing: the same weights for all tokens of all examples."""

import jax

from modjax.ops.lora import Mix
from modjax.routing.base import Router, per_site, static


class Fixed(Router):
    """Weights per layer and site, the same for all tokens."""

    weights: dict[str, jax.Array] = per_site("LE")  # float32
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        return self.weights[site]
