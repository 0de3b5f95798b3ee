"""Folding: a static mixture of experts added to the weights of the base model."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from modjax.arguments import choice
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.factors import Shares, stacked, summed
from modjax.merge.result import checked_weights
from modjax.models.decoder import Decoder
from modjax.ops.lora import Factors, Mix


def fold(
    decoder: Decoder, library: Library, weights: Sequence[float] | None = None, mix: Mix = "parameters"
) -> Decoder:
    """A decoder with W + delta in place of each kernel W at a site of the library.

        mix="parameters"   delta = (sum_e w_e A_e)^T (sum_e w_e s_e B_e)
        mix="outputs"      delta = sum_e w_e s_e A_e^T B_e

    Both are equal for one expert of weight 1. Sums are in float32, one layer at a time, then cast to W's dtype. The
    original decoder is not changed.

    Args:
      decoder: with kernels that are not quantised; the library must fit it (see `Model.check`).
      weights: E numbers; optional for a library of one expert, then 1.

    Raises InputError for a quantised decoder, for several experts without weights, for weights that are not E finite
    numbers, and for an unknown mix.
    """
    choice("mix", mix, ("parameters", "outputs"))
    weights_E = _weights(library, weights)
    folded = jax.tree.map(lambda leaf: leaf, decoder)
    for site, lora in library.loras.items():
        linear = folded.blocks.linear(site)
        if not isinstance(linear.kernel, nnx.Param):
            raise InputError(
                f"site {site}: experts cannot be folded into quantised weights; load the model with quantize=None"
            )
        kernel_LIO = linear.kernel[...]
        sum_LIO = _folded(kernel_LIO, _combined(lora, weights_E, mix))
        linear.kernel = nnx.Param(jax.device_put(sum_LIO, kernel_LIO.sharding))
    return folded


def _weights(library, weights):
    if weights is None:
        if len(library) > 1:
            raise InputError(f"no weights for a library of {len(library)} experts; expected weights, one per expert")
        weights = [1.0]
    return jnp.asarray(checked_weights(library, weights), jnp.float32)


def _combined(lora, weights_E, mix) -> Factors:
    weights_LE = jnp.broadcast_to(weights_E[None], lora.scale.shape)
    part_LE = weights_LE * lora.scale
    return summed(lora, Shares(weights_LE, part_LE)) if mix == "parameters" else stacked(lora, part_LE)


@jax.jit
def _folded(kernel_LIO, factors):
    def one(layer):
        kernel_IO, a_SI, b_SO = layer
        delta_IO = jnp.einsum("si,so->io", a_SI, b_SO, precision="highest")
        return (kernel_IO.astype(jnp.float32) + delta_IO).astype(kernel_IO.dtype)

    return jax.lax.map(one, (kernel_LIO, *factors))
