"""One layer of the decoder: attention and MLP, in the arrangements of all families."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from modjax.models.cache import Cache
from modjax.models.config import ModelConfig
from modjax.models.layers import Linear, Maps, Norm
from modjax.ops.attention import attend
from modjax.ops.branches import attend_branches
from modjax.ops.kept import kept
from modjax.ops.rope import Rope, frequencies, rope_angles, rotate
from modjax.parallel import rules

ACTIVATE = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "tanh": jnp.tanh,
}

EVERY = 2**31 - 1  # a window of all positions


@dataclasses.dataclass(frozen=True)
class Frame:
    """Inputs that all layers share: the places of the tokens, and what tells which keys each may read."""

    positions_BT: jax.Array  # int32
    angles_BTJ: jax.Array | None  # float32[B, T, J]; None: no rotary embedding, or another in each layer
    query_scale_BT: jax.Array | None  # float32: factor on queries
    ends_BT: jax.Array | None = None  # int32, see `modjax.data.rows.Rows`; None in decoding
    cache: Cache | None = None  # in decoding
    row_axes: tuple[str, ...] = rules.ROWS  # axes of a mesh that B is split along


class Layer(NamedTuple):
    """Values, other than weights, that differ from layer to layer; None for those that are the same in all layers."""

    window: jax.Array | None = None  # int32: the positions that a query reads
    scale: jax.Array | None = None  # float32: factor on attention scores
    frequencies_J: jax.Array | None = None  # float32: those of its rotary embedding, zeros if it has none
    magnitude: jax.Array | None = None  # float32: factor on the rotated dimensions

    @classmethod
    def stacked(cls, config: ModelConfig) -> Layer:
        """The values of all layers along a leading L."""
        scale_L = None
        if config.inverse_layer_scale:
            scale = config.H**-0.5 if config.attn_scale is None else config.attn_scale
            scale_L = scale / jnp.arange(1, config.L + 1, dtype=jnp.float32)
        window_L = None
        if config.local is not None:
            window_L = jnp.where(jnp.array(config.local), config.window or EVERY, EVERY)
        return cls(window_L, scale_L, *_rotations(config.ropes, config.rope_dim))


def _rotations(ropes: tuple[Rope | None, ...], dim: int) -> tuple[jax.Array, jax.Array] | tuple[()]:
    """(frequencies float32[L, J], factors float32[L] on the rotated dimensions), if they differ from layer to layer."""
    if len(set(ropes)) == 1:
        return ()
    tables = [np.zeros(dim // 2) if rope is None else frequencies(dim, *rope) for rope in ropes]
    magnitudes = [1.0 if rope is None else rope.magnitude for rope in ropes]
    return jnp.array(tables, jnp.float32), jnp.array(magnitudes, jnp.float32)


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
        norms = {name: norm(config, (config.L, *shape), dtype) for name, shape in _norm_shapes(config).items()}
        return cls(config, Maps(halves["attn"]), Maps(halves["mlp"]), norms)

    def __call__(self, x_BTD, frame: Frame, layer: Layer, hook, cached):
        """(x_BTD after this layer, (k_BTKH, v_BTKH) of these tokens)."""
        normed_BTD = _normed(self.attn_norm, x_BTD)
        attended_BTD, new = self.attention(normed_BTD, frame, layer, hook, cached)
        residual_BTD = x_BTD + self.residual(self.attn_post_norm, attended_BTD)
        if self.config.parallel:
            read_BTD = _normed(self.mlp_norm, x_BTD) if self.config.two_norms else normed_BTD
        else:
            read_BTD = _normed(self.mlp_norm, residual_BTD)
        return residual_BTD + self.residual(self.mlp_post_norm, self.feed_forward(read_BTD, hook)), new

    def residual(self, norm: Norm | None, y_BTD):
        """The term that attention or MLP add to the hidden state, from their output."""
        y_BTD = _normed(norm, y_BTD)
        if self.config.residual_scale == 1:
            return y_BTD
        return (self.config.residual_scale * y_BTD.astype(jnp.float32)).astype(y_BTD.dtype)

    def attention(self, x_BTD, frame: Frame, layer: Layer, hook, cached):
        """(output float[B, T, D], (k_BTKH, v_BTKH) of these tokens)."""
        config = self.config
        q_BTNH, k_BTKH, v_BTKH = self.heads(x_BTD, hook)
        q_BTNH, k_BTKH = (self.rotated(y_BTNH, frame, layer) for y_BTNH in (q_BTNH, k_BTKH))
        if frame.query_scale_BT is not None:
            q_BTNH = q_BTNH * frame.query_scale_BT[:, :, None, None].astype(q_BTNH.dtype)
        how = {"scale": config.attn_scale if layer.scale is None else layer.scale, "softcap": config.attn_softcap}
        window = config.window if layer.window is None else layer.window
        if cached is None:
            places = (frame.positions_BT, frame.ends_BT)
            out_BTNH = attend(q_BTNH, k_BTKH, v_BTKH, *places, window=window, row_axes=frame.row_axes, **how)
        else:
            held = (cached[:2], cached[2:], frame.cache.masks(window))
            out_BTNH = attend_branches(q_BTNH, k_BTKH, v_BTKH, *held, **how)
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
        if clip := self.config.qkv_clip:
            q_BTO, k_BTO, v_BTO = (jnp.clip(y_BTO, -clip, clip) for y_BTO in (q_BTO, k_BTO, v_BTO))
        full = self.config.qk_norm == "full"
        if full:
            q_BTO, k_BTO = _normed(self.q_norm, q_BTO), _normed(self.k_norm, k_BTO)
        q_BTNH, k_BTKH, v_BTKH = (y_BTO.reshape(B, T, -1, H) for y_BTO in (q_BTO, k_BTO, v_BTO))
        if not full:
            q_BTNH, k_BTKH = _normed(self.q_norm, q_BTNH), _normed(self.k_norm, k_BTKH)
        return q_BTNH, k_BTKH, v_BTKH

    def rotated(self, x_BTNH, frame: Frame, layer: Layer) -> jax.Array:
        """Queries or keys after the rotary embedding of this layer, if it has one."""
        angles_BTJ, magnitude = frame.angles_BTJ, layer.magnitude
        if layer.frequencies_J is not None:
            angles_BTJ = rope_angles(frame.positions_BT, layer.frequencies_J)
        elif angles_BTJ is None:
            return x_BTNH
        else:
            magnitude = 1.0 if self.config.rope_scaling is None else self.config.rope_scaling.magnitude
        return rotate(x_BTNH, angles_BTJ, magnitude, self.config.rope_adjacent)

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
            y_BTO = y_BTO + deltas[site].astype(y_BTO.dtype) if site in deltas else y_BTO
            outputs.append(kept(y_BTO))
        return outputs

    def linear(self, site: str) -> Linear:
        """The linear map at a site such as `attn.q`; in stacked blocks, the maps of all layers."""
        half, name = site.split(".")
        return getattr(getattr(self, half), name)


NORMS = ("attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm", "q_norm", "k_norm")


def _norm_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """{norm: shape of its scale} of the norms that a block of this config has."""
    N, K, H = config.N, config.K, config.H
    shapes = {}
    if config.pre_norm:
        shapes["attn_norm"] = (config.D,)
        if config.two_norms or not config.parallel:
            shapes["mlp_norm"] = (config.D,)
    if config.post_norm:
        shapes |= {"attn_post_norm": (config.D,), "mlp_post_norm": (config.D,)}
    if config.qk_norm == "head":
        shapes |= {"q_norm": (H,), "k_norm": (H,)}
    if config.qk_norm == "each_head":
        shapes |= {"q_norm": (N, H), "k_norm": (K, H)}
    if config.qk_norm == "full":
        shapes |= {"q_norm": (N * H,), "k_norm": (K * H,)}
    return shapes


def linear(key: jax.Array, lead: tuple[int, ...], inputs: int, outputs: int, bias: bool, dtype) -> Linear:
    """A random linear map: kernel normal(0, 0.02), bias 0."""
    return Linear(normal(key, (*lead, inputs, outputs), dtype), jnp.zeros((*lead, outputs), dtype) if bias else None)


def norm(config: ModelConfig, shape: tuple[int, ...], dtype) -> Norm:
    """A norm whose factor, if any, is 1 and whose bias, if any, is 0."""
    offset = 1.0 if config.norm == "rms_offset" else 0.0
    scale = None if config.norm == "layer_plain" else jnp.full(shape, 1.0 - offset, dtype)
    bias = jnp.zeros(shape, dtype) if config.norm == "layer" else None
    return Norm(scale, bias, config.norm_eps, offset, centred=config.norm.startswith("layer"))


def normal(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    return 0.02 * jax.random.normal(key, shape, dtype)


def _normed(norm: Norm | None, x: jax.Array) -> jax.Array:
    return x if norm is None else norm(x)
