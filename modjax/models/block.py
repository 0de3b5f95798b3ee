"""One layer of the decoder: attention and MLP, in the arrangements of all families."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from modjax.models.config import ModelConfig
from modjax.models.layers import Linear, Maps, Norm
from modjax.ops.attention import attend
from modjax.ops.rope import rotate

ACTIVATE = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "tanh": jnp.tanh,
}


@dataclasses.dataclass(frozen=True)
class Frame:
    """Inputs that all layers share: the rotary angles of the tokens, and the keys that each token may read."""

    angles_BTJ: jax.Array | None  # float32[B, T, J]; None: no rotary embedding
    mask_BTS: jax.Array  # bool
    window_BTS: jax.Array | None  # bool: the mask of local layers, if only some layers are local
    column: jax.Array | None  # first column of the cache for the keys and values of these tokens

    def joined(self, cached_BSKH: jax.Array, new_BTKH: jax.Array) -> jax.Array:
        """The cached keys or values, with those of these tokens written to their columns."""
        start = (0, self.column, 0, 0)
        return jax.lax.dynamic_update_slice(cached_BSKH, new_BTKH.astype(cached_BSKH.dtype), start)


class Layer(NamedTuple):
    """Values, other than weights, that differ from layer to layer; None for those that are the same in all layers."""

    local: jax.Array | None = None  # bool: use the window mask of the frame
    scale: jax.Array | None = None  # float32: factor on attention scores

    @classmethod
    def stacked(cls, config: ModelConfig) -> Layer:
        """The values of all layers along a leading L."""
        scale_L = None
        if config.inverse_layer_scale:
            scale = config.H**-0.5 if config.attn_scale is None else config.attn_scale
            scale_L = scale / jnp.arange(1, config.L + 1, dtype=jnp.float32)
        return cls(None if config.local is None else jnp.array(config.local), scale_L)


class Block(nnx.Module):
    """One layer: attention and MLP, in sequence or in parallel.

    Norms that the config does not have are None: `mlp_norm` if the MLP reads the normalised input of attention,
    `attn_norm` and `mlp_norm` if only outputs are normalised (by `attn_post_norm` and `mlp_post_norm`), and so on.
    """

    def __init__(self, config: ModelConfig, attn: Maps, mlp: Maps, norms: dict[str, Norm | None]):
        self.config = config
        self.attn, self.mlp = attn, mlp
        for name in NORMS:
            setattr(self, name, norms.get(name))

    @classmethod
    def init(cls, config: ModelConfig, key: jax.Array, dtype: jnp.dtype) -> Block:
        """Random blocks of all layers, every Param with a leading L: matrices normal(0, 0.02), norms 1, biases 0."""
        halves: dict[str, dict[str, Linear]] = {"attn": {}, "mlp": {}}
        for number, (site, (inputs, outputs)) in enumerate(config.sites.items()):
            half, name = site.split(".")
            site_key = jax.random.fold_in(key, number)
            halves[half][name] = linear(site_key, (config.L,), inputs, outputs, config.bias(site), dtype)
        norms = {name: norm(config, (config.L, width), dtype) for name, width in _norm_widths(config).items()}
        return cls(config, Maps(halves["attn"]), Maps(halves["mlp"]), norms)

    def __call__(self, x_BTD, frame: Frame, layer: Layer, hook, cached):
        """(x_BTD after this layer, (k_BTKH, v_BTKH) of these tokens)."""
        normed_BTD = _normed(self.attn_norm, x_BTD)
        attended_BTD, new = self.attention(normed_BTD, frame, layer, hook, cached)
        residual_BTD = x_BTD + _normed(self.attn_post_norm, attended_BTD)
        if self.config.parallel:
            read_BTD = _normed(self.mlp_norm, x_BTD) if self.config.two_norms else normed_BTD
        else:
            read_BTD = _normed(self.mlp_norm, residual_BTD)
        return residual_BTD + _normed(self.mlp_post_norm, self.feed_forward(read_BTD, hook)), new

    def attention(self, x_BTD, frame: Frame, layer: Layer, hook, cached):
        """(output float[B, T, D], (k_BTKH, v_BTKH) of these tokens)."""
        config = self.config
        q_BTNH, k_BTKH, v_BTKH = self.heads(x_BTD, hook)
        if frame.angles_BTJ is not None:
            magnitude = 1.0 if config.rope_scaling is None else config.rope_scaling.magnitude
            q_BTNH, k_BTKH = (rotate(y_BTNH, frame.angles_BTJ, magnitude) for y_BTNH in (q_BTNH, k_BTKH))
        k_BSKH, v_BSKH = k_BTKH, v_BTKH
        if cached is not None:
            k_BSKH, v_BSKH = frame.joined(cached[0], k_BTKH), frame.joined(cached[1], v_BTKH)
        mask_BTS = frame.mask_BTS
        if layer.local is not None:
            mask_BTS = jnp.where(layer.local, frame.window_BTS, mask_BTS)
        scale = config.attn_scale if layer.scale is None else layer.scale
        out_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale, config.attn_softcap)
        (out_BTD,) = self.maps(("attn.o",), out_BTNH.reshape(*x_BTD.shape[:2], -1), hook)
        return out_BTD, (k_BTKH, v_BTKH)

    def heads(self, x_BTD, hook) -> tuple[jax.Array, jax.Array, jax.Array]:
        """q_BTNH, k_BTKH, v_BTKH before rotation."""
        B, T, _ = x_BTD.shape
        N, K, H = self.config.N, self.config.K, self.config.H
        if self.config.fused_qkv is None:
            q_BTO, k_BTO, v_BTO = self.maps(("attn.q", "attn.k", "attn.v"), x_BTD, hook)
        else:
            (qkv_BTO,) = self.maps(("attn.qkv",), x_BTD, hook)
            if self.config.fused_qkv == "interleaved":
                return tuple(jnp.moveaxis(qkv_BTO.reshape(B, T, N, 3, H), 3, 0))
            q_BTO, k_BTO, v_BTO = jnp.split(qkv_BTO, (N * H, (N + K) * H), axis=-1)
        full = self.config.qk_norm == "full"
        if full:
            q_BTO, k_BTO = _normed(self.q_norm, q_BTO), _normed(self.k_norm, k_BTO)
        q_BTNH, k_BTKH, v_BTKH = (y_BTO.reshape(B, T, -1, H) for y_BTO in (q_BTO, k_BTO, v_BTO))
        if not full:
            q_BTNH, k_BTKH = _normed(self.q_norm, q_BTNH), _normed(self.k_norm, k_BTKH)
        return q_BTNH, k_BTKH, v_BTKH

    def feed_forward(self, x_BTD, hook):
        """Output of the MLP, float[B, T, D]."""
        config, activate = self.config, ACTIVATE[self.config.activation]
        if not config.gated:
            (wide_BTF,) = self.maps(("mlp.fc1",), x_BTD, hook)
            (out_BTD,) = self.maps(("mlp.fc2",), activate(wide_BTF), hook)
            return out_BTD
        if config.fused_mlp:
            (both_BTF,) = self.maps(("mlp.gate_up",), x_BTD, hook)
            gate_BTF, up_BTF = jnp.split(both_BTF, 2, axis=-1)
        else:
            gate_BTF, up_BTF = self.maps(("mlp.gate", "mlp.up"), x_BTD, hook)
        (out_BTD,) = self.maps(("mlp.down",), activate(gate_BTF) * up_BTF, hook)
        return out_BTD

    def maps(self, sites: tuple[str, ...], x_BTI, hook) -> list[jax.Array]:
        """The outputs of the sites that read x, each plus the delta of the hook if there is one."""
        deltas = hook(sites, x_BTI)
        outputs = []
        for site in sites:
            y_BTO = self.linear(site)(x_BTI)
            outputs.append(y_BTO + deltas[site].astype(y_BTO.dtype) if site in deltas else y_BTO)
        return outputs

    def linear(self, site: str) -> Linear:
        """The linear map at a site such as `attn.q`; in stacked blocks, the maps of all layers."""
        half, name = site.split(".")
        return getattr(getattr(self, half), name)


NORMS = ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm", "q_norm", "k_norm")


def _norm_widths(config: ModelConfig) -> dict[str, int]:
    """{norm: width} of the norms that a block of this config has."""
    widths = {}
    if config.pre_norm:
        widths["attn_norm"] = config.D
        if config.two_norms or not config.parallel:
            widths["mlp_norm"] = config.D
    if config.post_norm:
        widths |= {"attn_post_norm": config.D, "mlp_post_norm": config.D}
    if config.qk_norm == "head":
        widths |= {"q_norm": config.H, "k_norm": config.H}
    if config.qk_norm == "full":
        widths |= {"q_norm": config.N * config.H, "k_norm": config.K * config.H}
    return widths


def linear(key: jax.Array, lead: tuple[int, ...], inputs: int, outputs: int, bias: bool, dtype) -> Linear:
    """A random linear map: kernel normal(0, 0.02), bias 0."""
    return Linear(normal(key, (*lead, inputs, outputs), dtype), jnp.zeros((*lead, outputs), dtype) if bias else None)


def norm(config: ModelConfig, shape: tuple[int, ...], dtype) -> Norm:
    """A norm whose factor is 1 and whose bias, if any, is 0."""
    bias = jnp.zeros(shape, dtype) if config.norm == "layer" else None
    offset = 1.0 if config.norm == "rms_offset" else 0.0
    return Norm(jnp.full(shape, 1.0 - offset, dtype), bias, config.norm_eps, offset)


def normal(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    return 0.02 * jax.random.normal(key, shape, dtype)


def _normed(norm: Norm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)
