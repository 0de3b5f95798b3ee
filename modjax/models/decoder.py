"""The decoder of all families: blocks stacked along a leading layer axis and scanned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from modjax.models.block import Block, Frame, Layer, linear, norm, normal
from modjax.models.cache import Cache
from modjax.models.config import ModelConfig
from modjax.models.layers import Linear, Norm
from modjax.ops.attention import causal_mask
from modjax.ops.rope import frequencies, rope_angles

Adapt = Callable[[Any, tuple[str, ...], jax.Array], dict[str, jax.Array]]


class Decoder(nnx.Module):
    """Embedding, stacked blocks, final norm and head. Adapters are passed separately, as a pytree and a function."""

    def __init__(
        self,
        config: ModelConfig,
        embed: jax.Array,
        blocks: Block,
        final_norm: Norm,
        head: Linear | None,
        position_embed: jax.Array | None = None,
        tied_bias: jax.Array | None = None,
    ):
        self.config = config
        self.embed = nnx.Param(embed)  # [V, D]
        self.position_embed = None if position_embed is None else nnx.Param(position_embed)  # [context, D]
        self.blocks = blocks  # every Param with a leading L
        self.final_norm = final_norm
        self.head = head  # None: the transposed embedding
        self.tied_bias = None if tied_bias is None else nnx.Param(tied_bias)  # [V], bias of a tied head

    @classmethod
    def init(cls, config: ModelConfig, key: jax.Array, dtype: jnp.dtype = jnp.float32) -> Decoder:
        """Random weights: matrices normal(0, 0.02), norms 1, biases 0. Under jax.eval_shape, the abstract tree."""
        embed_key, head_key, block_key = jax.random.split(key, 3)
        positions = None
        if config.learned_positions:
            positions = normal(jax.random.fold_in(embed_key, 1), (config.context, config.D), dtype)
        return cls(
            config,
            embed=normal(embed_key, (config.V, config.D), dtype),
            blocks=Block.init(config, block_key, dtype),
            final_norm=norm(config, (config.D,), dtype),
            head=None if config.tied else linear(head_key, (), config.D, config.V, config.head_bias, dtype),
            position_embed=positions,
            tied_bias=jnp.zeros(config.V, dtype) if config.tied and config.head_bias else None,
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
        """Hidden states after the final norm, float[B, T, D] in the weights' dtype, and the cache with these tokens.

        Rotary factors that depend on the sequence length (longrope) are chosen by the length of each segment, as if it
        were alone in its row. With a cache they are chosen by the size of the cache, so that all its keys are rotated
        in the same way, however many are written later.
        A position beyond the learned position embeddings makes its row NaN.

        Args:
          tokens_BT: int[B, T].
          positions_BT: int[B, T]; by default counted from 0, or from the next column of the cache.
          segments_BT: int[B, T]; a token reads earlier tokens of its own segment; 0 is padding. By default all 1.
          adapters: a pytree; every leaf has a leading layer axis.
          adapt: adapt(adapters of one layer, sites, x_BTI) -> {site: delta_BTO}, called once per input that sites
            share; the deltas, for all, some or none of these sites, are added to their outputs.
          cache: keys and values of earlier tokens; all rows use the same columns, so pad on the left.
          remat: recompute each layer in the backward pass instead of storing its activations.
          constrain: sets the sharding of the hidden states between layers. Without it XLA may, on a mesh, split their
            width, because the weights are split that way.
        """
        inputs = (tokens_BT, positions_BT, segments_BT)
        hidden_BTD, cache, _ = self._scan(inputs, adapters, adapt, cache=cache, remat=remat, constrain=constrain)
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
        """Results of `look` for the inputs of all sites, stacked over layers: {name: [L, ...]}.

        `look` is called with the same arguments as `adapt`; it does not change the computation.
        """
        return self._scan((tokens_BT, positions_BT, segments_BT), adapters, adapt, look=look)[2]

    def _scan(self, inputs, adapters, adapt, cache=None, remat=False, look=None, constrain=lambda x_BTD: x_BTD):
        tokens_BT, positions_BT, segments_BT = inputs
        positions_BT, segments_BT = _positions_and_segments(tokens_BT, positions_BT, segments_BT, cache)
        cache = None if cache is None else cache.placed(positions_BT, segments_BT)
        frame = _frame(self.config, positions_BT, segments_BT, cache)

        def layer(x_BTD, scanned):
            block, constants, adapters_of_layer, cached = scanned
            seen = {}

            def hook(sites, x_BTI):
                if look is not None:
                    seen.update(look(adapters_of_layer, sites, x_BTI))
                return {} if adapt is None else adapt(adapters_of_layer, sites, x_BTI)

            x_BTD, new = block(x_BTD, frame, constants, hook, cached)
            return constrain(x_BTD), (None if cached is None else new, seen)

        layer = jax.checkpoint(layer, prevent_cse=False) if remat else layer
        cached = None if cache is None else (cache.k, cache.v)
        x_BTD = constrain(self.embedded(tokens_BT, positions_BT))
        x_BTD, (new, seen) = jax.lax.scan(layer, x_BTD, (self.blocks, Layer.stacked(self.config), adapters, cached))
        return self.final_norm(x_BTD), None if cache is None else cache.filled(*new), seen

    def embedded(self, tokens_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """The input of the first layer, float[B, T, D] in the weights' dtype."""
        x_BTD = jnp.take(self.embed[...], tokens_BT, axis=0)
        if self.config.embed_scale != 1:
            x_BTD = x_BTD * jnp.asarray(self.config.embed_scale, x_BTD.dtype)
        if self.position_embed is not None:
            x_BTD = x_BTD + jnp.take(self.position_embed[...], positions_BT, axis=0)
        return x_BTD

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits, float32[..., V], accumulated in float32; hidden: float[..., D] as the decoder returns it."""
        if self.head is not None:
            logits = self.head(hidden, jnp.float32)
        else:
            logits = jnp.einsum("...d,vd->...v", hidden, self.embed[...], preferred_element_type=jnp.float32)
        if self.tied_bias is not None:
            logits = logits + jnp.broadcast_to(self.tied_bias[...], logits.shape)
        if self.config.logit_scale != 1:
            logits = logits * self.config.logit_scale
        cap = self.config.logit_softcap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def _positions_and_segments(tokens_BT, positions_BT, segments_BT, cache: Cache | None) -> tuple[jax.Array, jax.Array]:
    """int32[B, T] each, with defaults for those that are None."""
    if positions_BT is None:
        first = 0 if cache is None else cache.index
        positions_BT = jnp.broadcast_to(first + jnp.arange(tokens_BT.shape[1])[None, :], tokens_BT.shape)
    if segments_BT is None:
        segments_BT = jnp.ones(tokens_BT.shape, jnp.int32)
    return positions_BT.astype(jnp.int32), segments_BT.astype(jnp.int32)


def _frame(config: ModelConfig, positions_BT, segments_BT, cache: Cache | None) -> Frame:
    keys = (positions_BT, segments_BT) if cache is None else (cache.positions, cache.segments)
    some_layers = config.local is not None
    one_rope = len(set(config.ropes)) == 1 and config.ropes[0] is not None

    def mask(window: int | None) -> jax.Array:
        return causal_mask(positions_BT, keys[0], segments_BT, keys[1], window)

    return Frame(
        positions_BT=positions_BT,
        angles_BTJ=_angles(config, positions_BT, segments_BT, cache) if one_rope else None,
        query_scale_BT=None if config.position_scale is None else _query_scale(positions_BT, *config.position_scale),
        mask_BTS=mask(None if some_layers else config.window),
        window_BTS=mask(config.window) if some_layers else None,
        column=None if cache is None else cache.index,
    )


def _query_scale(positions_BT: jax.Array, weight: float, length: int) -> jax.Array:
    return 1 + weight * jnp.log1p(jnp.floor(positions_BT / length))


def _angles(config: ModelConfig, positions_BT, segments_BT, cache: Cache | None) -> jax.Array:
    scaling = config.rope_scaling
    short_J, long_J = (frequencies(config.rope_dim, config.rope_theta, scaling, long) for long in (False, True))
    if scaling is None or scaling.kind != "longrope":
        return rope_angles(positions_BT, short_J)
    if cache is not None:
        return rope_angles(positions_BT, long_J if cache.k.shape[2] > scaling.original else short_J)
    same_BTS = segments_BT[:, :, None] == segments_BT[:, None, :]
    last_BT = jnp.where(same_BTS, positions_BT[:, None, :], 0).max(axis=-1)
    beyond_BTJ = (last_BT >= scaling.original)[:, :, None]
    return jnp.where(beyond_BTJ, rope_angles(positions_BT, long_J), rope_angles(positions_BT, short_J))
