"""Quantised kernels of the frozen base: int8 with a scale per output channel, NF4 with a scale per 64 inputs.

Both take the place of the kernel [I, O] of a Linear. Stacked arrays have a leading L, so the scan over layers passes on
the codes of one layer, and kernels of at most one layer are decoded at a time. Only the linear maps of blocks are
quantised; embedding, head, norms and biases are not.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modjax.arguments import refused
from modjax.errors import InputError

BLOCK = 64  # inputs that share a scale in NF4
NF4_CODES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
CHUNK = 1 << 18  # weights of a host array encoded at a time, to bound the memory of intermediate arrays

# The backward pass decodes kernels again: stored instead, the decoded kernels of all layers would be the whole model in
# full precision. prevent_cse is not needed, because the backward pass of a scan is a separate loop, with which XLA
# cannot merge the forward pass.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


class Int8(nnx.Module):
    """Symmetric int8: kernel = code * scale, where the scale is the largest magnitude in an output channel / 127."""

    def __init__(self, codes: jax.Array, scale: jax.Array, sample: jax.Array):
        self.codes = nnx.Param(codes)  # int8[..., I, O]
        self.scale = nnx.Param(scale)  # float32[..., 1, O]
        self.sample = nnx.Param(sample)  # `sampled(original kernel)`, for the fingerprint

    @staticmethod
    @jax.jit
    def encode(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(codes, scale) of a kernel, float[..., I, O]."""
        kernel, scale = _with_magnitude(kernel)
        scale = scale / 127
        return jnp.where(scale > 0, jnp.round(kernel / scale), 0).astype(jnp.int8), scale

    def decode(self) -> jax.Array:
        """The kernel that the codes stand for, float32[..., I, O]."""
        return self.codes[...].astype(jnp.float32) * self.scale[...]

    def product(self, x: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
        """x @ kernel of one layer, x: float[..., I]; the scales of the channels multiply the product."""

        def product(x, codes_IO, scale_1O):
            y = jnp.einsum("...i,io->...o", x, codes_IO.astype(x.dtype), preferred_element_type=dtype)
            return (y.astype(jnp.float32) * jnp.broadcast_to(scale_1O[0], y.shape)).astype(y.dtype)

        return _recomputed(product)(x, self.codes[...], self.scale[...])


class NF4(nnx.Module):
    """kernel = code * scale, sixteen codes at the quantiles of a normal distribution (arXiv 2305.14314, appendix E).

    A scale is the largest magnitude in a block of 64 successive inputs of one output channel; the last block is smaller
    if I is not a multiple of 64. Scales are float32 and not quantised themselves, so a weight takes 4.5 bits.
    """

    def __init__(self, codes: jax.Array, scale: jax.Array, sample: jax.Array):
        self.codes = nnx.Param(codes)  # uint8[..., I / 2, O], inputs 2 i and 2 i + 1 in the low and the high four bits
        self.scale = nnx.Param(scale)  # float32[..., I / 64 rounded up, O]
        self.sample = nnx.Param(sample)  # as in Int8

    @staticmethod
    @jax.jit
    def encode(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(codes, scale) of a kernel, float[..., I, O]: the nearest code of each weight.

        Raises InputError if I is odd.
        """
        *lead, inputs, outputs = kernel.shape
        if inputs % 2:
            raise InputError(f"nf4 packs inputs in pairs; a linear map has {inputs}; expected an even number")
        filler = [(0, 0)] * len(lead) + [(0, -inputs % BLOCK), (0, 0)]
        blocks, scale = _with_magnitude(jnp.pad(kernel, filler).reshape(*lead, -1, BLOCK, outputs))
        unit = jnp.where(scale > 0, blocks / scale, 0)
        boundaries = [(low + high) / 2 for low, high in zip(NF4_CODES[:-1], NF4_CODES[1:], strict=True)]
        codes = sum((unit > boundary).astype(jnp.uint8) for boundary in boundaries)
        codes = codes.reshape(*lead, -1, outputs)[..., :inputs, :]
        return codes[..., ::2, :] | codes[..., 1::2, :] << 4, scale[..., 0, :]

    def decode(self) -> jax.Array:
        """The kernel that the codes stand for, float32[..., I, O]."""
        return _nf4(self.codes[...], self.scale[...])

    def product(self, x: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
        """x @ kernel of one layer, x: float[..., I]; the kernel is decoded to the dtype of x."""

        def product(x, codes, scale):
            kernel_IO = _nf4(codes, scale).astype(x.dtype)
            return jnp.einsum("...i,io->...o", x, kernel_IO, preferred_element_type=dtype)

        return _recomputed(product)(x, self.codes[...], self.scale[...])


FORMATS = {"int8": Int8, "nf4": NF4}


def check(quantize: str | None) -> None:
    """Raises InputError unless `quantize` is None or a key of FORMATS."""
    if quantize is not None and not (isinstance(quantize, str) and quantize in FORMATS):
        raise refused("quantize", quantize, f"None or one of {', '.join(map(repr, FORMATS))}")


def encoded(kernel_IO: np.ndarray, quantize: str, path: str) -> dict[str, np.ndarray]:
    """{leaf path: host array} of the kernel at `path`, quantised on the default device in chunks of channels."""
    step = max(1, CHUNK // kernel_IO.shape[0])
    encode = FORMATS[quantize].encode
    parts = [jax.device_get(encode(kernel_IO[:, at : at + step])) for at in range(0, kernel_IO.shape[1], step)]
    codes, scale = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    return {f"{path}.codes": codes, f"{path}.scale": scale, f"{path}.sample": sampled(kernel_IO)}


def sampled(array: jax.Array | np.ndarray, axes: int | None = None) -> jax.Array | np.ndarray:
    """Up to eight evenly spaced elements along each of the last `axes` axes (by default all), as bfloat16."""
    sizes = array.shape if axes is None else array.shape[-axes:]
    return array[(..., *(slice(None, None, -(-size // 8)) for size in sizes))].astype(jnp.bfloat16)


def _with_magnitude(kernel):
    """The kernel in float32, and its largest magnitude over the input axis, which is kept with size 1."""
    kernel = kernel.astype(jnp.float32)
    return kernel, jnp.max(jnp.abs(kernel), axis=-2, keepdims=True)


def _nf4(codes, scale):
    *lead, half, outputs = codes.shape
    nibbles = jnp.stack([codes & 15, codes >> 4], axis=-2).reshape(*lead, 2 * half, outputs)
    scale = jnp.repeat(scale, BLOCK, axis=-2)[..., : 2 * half, :]
    # A binary tree of selects, one level per bit: a table look-up would be a gather, which is slow on a TPU. Codes are
    # multiplied by the scale before the selects, because selects among constants are the same for every layer, and a
    # scan with gradients stores such values at full size.
    values = [code * scale for code in NF4_CODES]
    for bit in range(4):
        is_set = (nibbles >> bit) & 1 != 0
        values = [jnp.where(is_set, high, low) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]
