"""What a layer keeps for the backward pass: the results of matrix products, attention and random draws.

All other arrays are results of cheap elementwise operations on these. To compute them once more costs less time than to
write and read them, and they are the larger part of what the backward pass reads.
"""

from collections.abc import Callable

import jax
from jax.ad_checkpoint import checkpoint_name

_NAME = "kept"


def kept(x: jax.Array) -> jax.Array:
    """The same array, kept for the backward pass of its layer."""
    return checkpoint_name(x, _NAME)


def keeping(layer: Callable, remat: bool) -> Callable:
    """The body of a scan over layers, whose backward pass gets the inputs and, unless `remat`, what the layer keeps."""
    policy = None if remat else jax.checkpoint_policies.save_only_these_names(_NAME)
    return jax.checkpoint(layer, prevent_cse=False, policy=policy)
