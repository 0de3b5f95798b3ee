"""The parts of a block: linear maps, norms, and groups of linear maps by name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from modjax.models.quant import NF4, Int8
from modjax.ops.norms import layer_norm, rms_norm


class Linear(nnx.Module):
    """x @ kernel + bias, with a kernel [I, O], plain or quantised, and an optional bias [O]; a leading L if stacked."""

    def __init__(self, kernel: jax.Array | Int8 | NF4, bias: jax.Array | None = None):
        self.kernel = kernel if isinstance(kernel, Int8 | NF4) else nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)

    @property
    def matrix(self) -> jax.Array:
        """The kernel, float[..., I, O]; decoded to float32 if it is quantised."""
        return self.kernel.decode() if isinstance(self.kernel, Int8 | NF4) else self.kernel[...]

    def __call__(self, x: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
        """x: float[..., I]; result: float[..., O], accumulated and returned in `dtype` if one is given."""
        if isinstance(self.kernel, Int8 | NF4):
            y = self.kernel.product(x, dtype)
        else:
            y = jnp.einsum("...i,io->...o", x, self.kernel[...], preferred_element_type=dtype)
        return y if self.bias is None else y + jnp.broadcast_to(self.bias[...], y.shape).astype(y.dtype)


class Norm(nnx.Module):
    """RMS norm with the factor `offset + scale`; if centred, layer norm, which may lack its bias or both."""

    def __init__(
        self, scale: jax.Array | None, bias: jax.Array | None, eps: float, offset: float = 0.0, centred: bool = False
    ):
        self.scale = None if scale is None else nnx.Param(scale)
        self.bias = None if bias is None else nnx.Param(bias)
        self.eps, self.offset, self.centred = eps, offset, centred

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: float[..., D]; result: like x."""
        scale, bias = (None if part is None else part[...] for part in (self.scale, self.bias))
        if self.centred:
            return layer_norm(x, scale, bias, self.eps)
        return rms_norm(x, scale, self.eps, self.offset)


class Maps(nnx.Module):
    """Linear maps by name: the site `attn.q` of a block is `block.attn.q`."""

    def __init__(self, maps: dict[str, Linear]):
        for name, linear in maps.items():
            setattr(self, name, linear)
