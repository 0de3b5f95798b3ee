"""One decoder for every family: blocks stacked along a leading layer axis and scanned."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from modjax.models.cache import Cache
from modjax.models.config import ModelConfig
from modjax.models.layers import Linear, Maps, Norm
from modjax.ops.attention import attend, causal_mask
from modjax.ops.rope import rope_angles, rotate

Adapt = Callable[[Any, tuple[str, ...], jax.Array], dict[str, jax.Array]]

ACTIVATE = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


@dataclasses.dataclass(frozen=True)
class Frame:
    """What all layers share: where the tokens stand and which keys they may read."""

    angles_BTJ: jax.Array
    mask_BTS: jax.Array
    column: jax.Array | None  # where these tokens' keys and values begin among the cached ones

    def joined(self, cached_BSKH: jax.Array, new_BTKH: jax.Array) -> jax.Array:
        start = (0, self.column, 0, 0)
        return jax.lax.dynamic_update_slice(cached_BSKH, new_BTKH.astype(cached_BSKH.dtype), start)


class Block(nnx.Module):
    """One layer: attention and MLP one after the other, or side by side on one norm (no `mlp_norm`)."""

    def __init__(self, config: ModelConfig, attn_norm: Norm, attn: Maps, mlp_norm: Norm | None, mlp: Maps):
        self.config = config
        self.attn_norm, self.attn = attn_norm, attn
        self.mlp_norm, self.mlp = mlp_norm, mlp

    def __call__(self, x_BTD, frame: Frame, hook, cached):
        """(x_BTD behind this layer, the tokens' own (k_BTKH, v_BTKH))."""
        normed_BTD = self.attn_norm(x_BTD)
        attended_BTD, new = self.attention(normed_BTD, frame, hook, cached)
        if self.mlp_norm is None:
            return x_BTD + attended_BTD + self.feed_forward(normed_BTD, hook), new
        x_BTD = x_BTD + attended_BTD
        return x_BTD + self.feed_forward(self.mlp_norm(x_BTD), hook), new

    def attention(self, x_BTD, frame: Frame, hook, cached):
        B, T, _ = x_BTD.shape
        heads = self.maps(("attn.q", "attn.k", "attn.v"), x_BTD, hook)
        q_BTNH, k_BTKH, v_BTKH = (y_BTO.reshape(B, T, -1, self.config.H) for y_BTO in heads)
        q_BTNH, k_BTKH = rotate(q_BTNH, frame.angles_BTJ), rotate(k_BTKH, frame.angles_BTJ)
        k_BSKH, v_BSKH = k_BTKH, v_BTKH
        if cached is not None:
            k_BSKH, v_BSKH = frame.joined(cached[0], k_BTKH), frame.joined(cached[1], v_BTKH)
        out_BTNH = attend(q_BTNH, k_BSKH, v_BSKH, frame.mask_BTS)
        (out_BTD,) = self.maps(("attn.o",), out_BTNH.reshape(B, T, -1), hook)
        return out_BTD, (k_BTKH, v_BTKH)

    def feed_forward(self, x_BTD, hook):
        activate = ACTIVATE[self.config.activation]
        if self.config.gated:
            gate_BTF, up_BTF = self.maps(("mlp.gate", "mlp.up"), x_BTD, hook)
            (out_BTD,) = self.maps(("mlp.down",), activate(gate_BTF) * up_BTF, hook)
        else:
            (wide_BTF,) = self.maps(("mlp.fc1",), x_BTD, hook)
            (out_BTD,) = self.maps(("mlp.fc2",), activate(wide_BTF), hook)
        return out_BTD

    def maps(self, sites: tuple[str, ...], x_BTI, hook) -> list[jax.Array]:
        """The outputs of the sites that read x, each with the hook's delta where it gives one."""
        deltas = hook(sites, x_BTI)
        outputs = []
        for site in sites:
            half, name = site.split(".")
            y_BTO = getattr(getattr(self, half), name)(x_BTI)
            outputs.append(y_BTO + deltas[site].astype(y_BTO.dtype) if site in deltas else y_BTO)
        return outputs


class Decoder(nnx.Module):
    """Embedding, stacked blocks, final norm, head. Adapters come beside it, as a pytree and a function."""

    def __init__(self, config: ModelConfig, embed: jax.Array, blocks: Block, final_norm: Norm, head: Linear | None):
        self.config = config
        self.embed = nnx.Param(embed)  # [V, D]
        self.blocks = blocks  # every Param with a leading L
        self.final_norm = final_norm
        self.head = head  # None: the embedding's transpose

    @classmethod
    def init(cls, config: ModelConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Decoder:
        """Random weights: matrices normal(0, 0.02), norms 1, biases 0; under jax.eval_shape the abstract tree."""
        embed_key, head_key, block_key = jax.random.split(key, 3)
        head = None if config.tied else _linear(head_key, (), config.D, config.V, config.head_bias, dtype)
        return cls(
            config,
            embed=_normal(embed_key, (config.V, config.D), dtype),
            blocks=_blocks(config, block_key, dtype),
            final_norm=_norm(config, (), dtype),
            head=head,
        )

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
        *,
        adapters: Any = None,
        adapt: Adapt | None = None,
        cache: Cache | None = None,
        remat: bool = False,
        constrain: Callable[[jax.Array], jax.Array] = lambda x_BTD: x_BTD,
    ) -> tuple[jax.Array, Cache | None]:
        """Hidden states behind the final norm, float[B, T, D] in the weights' dtype, and the cache, these tokens in it.

        Args:
          tokens_BT: int[B, T].
          positions_BT: int[B, T]; by default counted from 0, or on from the cache's next column.
          segments_BT: int[B, T]; a token reads earlier tokens of its own segment, 0 is padding. By default all 1.
          adapters: a pytree whose every leaf has a leading layer axis.
          adapt: adapt(adapters of one layer, sites, x_BTI), called once for each input that sites share, gives
            {site: delta_BTO} to add to the outputs of all, some or none of them.
          cache: keys and values of earlier tokens; the columns are the same in every row, so pad on the left.
          remat: recompute each layer in the backward pass instead of keeping its activations.
          constrain: states the sharding of the hidden states between layers; without it, on a mesh, XLA may rather
            split their width, as the weights' is split.
        """
        places = (tokens_BT, positions_BT, segments_BT)
        hidden_BTD, cache, _ = self._scan(places, adapters, adapt, cache=cache, remat=remat, constrain=constrain)
        return hidden_BTD, cache

    def observe(
        self,
        look: Callable[[Any, tuple[str, ...], jax.Array], dict[str, jax.Array]],
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
        *,
        adapters: Any = None,
        adapt: Adapt | None = None,
    ) -> dict[str, jax.Array]:
        """What `look` gives for each input on the way through, stacked over layers: {name: [L, ...]}.

        `look` is called as `adapt` is, with the same arguments, and changes nothing.
        """
        return self._scan((tokens_BT, positions_BT, segments_BT), adapters, adapt, look=look)[2]

    def _scan(self, places, adapters, adapt, cache=None, remat=False, look=None, constrain=lambda x_BTD: x_BTD):
        tokens_BT, positions_BT, segments_BT = places
        positions_BT, segments_BT = _places(tokens_BT, positions_BT, segments_BT, cache)
        cache = None if cache is None else cache.placed(positions_BT, segments_BT)
        frame = _frame(self.config, positions_BT, segments_BT, cache)

        def layer(x_BTD, scanned):
            block, adapters_of_layer, cached = scanned
            seen = {}

            def hook(sites, x_BTI):
                if look is not None:
                    seen.update(look(adapters_of_layer, sites, x_BTI))
                return {} if adapt is None else adapt(adapters_of_layer, sites, x_BTI)

            x_BTD, new = block(x_BTD, frame, hook, cached)
            return constrain(x_BTD), (None if cached is None else new, seen)

        layer = jax.checkpoint(layer, prevent_cse=False) if remat else layer
        cached = None if cache is None else (cache.k, cache.v)
        x_BTD = constrain(jnp.take(self.embed[...], tokens_BT, axis=0))
        x_BTD, (new, seen) = jax.lax.scan(layer, x_BTD, (self.blocks, adapters, cached))
        return self.final_norm(x_BTD), None if cache is None else cache.filled(*new), seen

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden: float[..., D] as the decoder gives it; result: float32[..., V], accumulated in float32."""
        if self.head is not None:
            return self.head(hidden, jnp.float32)
        return jnp.einsum("...d,vd->...v", hidden, self.embed[...], preferred_element_type=jnp.float32)


def _places(tokens_BT, positions_BT, segments_BT, cache: Cache | None) -> tuple[jax.Array, jax.Array]:
    if positions_BT is None:
        first = 0 if cache is None else cache.index
        positions_BT = jnp.broadcast_to(first + jnp.arange(tokens_BT.shape[1])[None, :], tokens_BT.shape)
    if segments_BT is None:
        segments_BT = jnp.ones(tokens_BT.shape, jnp.int32)
    return positions_BT.astype(jnp.int32), segments_BT.astype(jnp.int32)


def _frame(config: ModelConfig, positions_BT, segments_BT, cache: Cache | None) -> Frame:
    angles_BTJ = rope_angles(positions_BT, config.rope_dim, config.rope_theta)
    if cache is None:
        mask_BTT = causal_mask(positions_BT, positions_BT, segments_BT, segments_BT, config.window)
        return Frame(angles_BTJ, mask_BTT, None)
    mask_BTS = causal_mask(positions_BT, cache.positions, segments_BT, cache.segments, config.window)
    return Frame(angles_BTJ, mask_BTS, cache.index)


def _blocks(config: ModelConfig, key: jax.Array, dtype) -> Block:
    halves: dict[str, dict[str, Linear]] = {"attn": {}, "mlp": {}}
    for number, (site, (inputs, outputs)) in enumerate(config.sites.items()):
        half, name = site.split(".")
        site_key = jax.random.fold_in(key, number)
        halves[half][name] = _linear(site_key, (config.L,), inputs, outputs, config.bias(site), dtype)
    return Block(
        config,
        attn_norm=_norm(config, (config.L,), dtype),
        attn=Maps(halves["attn"]),
        mlp_norm=None if config.parallel else _norm(config, (config.L,), dtype),
        mlp=Maps(halves["mlp"]),
    )


def _linear(key: jax.Array, lead: tuple[int, ...], inputs: int, outputs: int, bias: bool, dtype) -> Linear:
    kernel = _normal(key, (*lead, inputs, outputs), dtype)
    return Linear(kernel, jnp.zeros((*lead, outputs), dtype) if bias else None)


def _norm(config: ModelConfig, lead: tuple[int, ...], dtype) -> Norm:
    shape = (*lead, config.D)
    bias = jnp.zeros(shape, dtype) if config.norm == "layer" else None
    return Norm(jnp.ones(shape, dtype), bias, config.norm_eps)


def _normal(key: jax.Array, shape: tuple[int, ...], dtype) -> jax.Array:
    return 0.02 * jax.random.normal(key, shape, dtype)
