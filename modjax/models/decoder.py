"""The decoder of all families: blocks stacked along a leading layer axis and scanned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from modjax.models.block import Block, Frame, Layer, linear, norm, normal
from modjax.models.cache import Cache
from modjax.models.config import ModelConfig
from modjax.models.layers import Linear, Norm
from modjax.ops.kept import keeping
from modjax.ops.rope import frequencies, rope_angles
from modjax.parallel import rules

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

    @property
    def mesh(self) -> jax.sharding.AbstractMesh:
        """The mesh of the weights; on one device it has no axes."""
        return jax.typeof(self.embed[...]).sharding.mesh

    @property
    def row_shards(self) -> int:
        """The devices that share rows which belong to no expert; their number must be a multiple of it."""
        return rules.row_shards(self.mesh)

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        ends_BT: jax.Array | None = None,
        *,
        adapters: Any = None,
        adapt: Adapt | None = None,
        remat: bool = False,
        row_axes: tuple[str, ...] = rules.ROWS,
    ) -> jax.Array:
        """Hidden states after the final norm, float[B, T, D] in the weights' dtype.

        Rotary factors that depend on the sequence length (longrope) are chosen by the longest path of each tree.
        A position beyond the learned position embeddings makes its row NaN.

        Args:
          tokens_BT: int[B, T].
          positions_BT: int[B, T], the depth of each token in its tree; by default counted from 0.
          ends_BT: int[B, T], the index just after each token's subtree, 0 for padding; see `modjax.data.rows.Rows`. By
            default each row is one path.
          adapters: a pytree; every leaf has a leading layer axis.
          adapt: adapt(adapters of one layer, sites, x_BTI) -> {site: delta_BTO}, called once per input that sites
            share; the deltas, for all, some or none of these sites, are added to their outputs.
          remat: recompute each layer in the backward pass instead of storing its activations.
          row_axes: the axes of the weights' mesh that rows are split along, without those that `jax.vmap` splits as its
            `spmd_axis_name`.
        """
        frame = _rows_frame(self.config, tokens_BT, positions_BT, ends_BT)
        frame = dataclasses.replace(frame, row_axes=row_axes)
        return self._scan(tokens_BT, frame, adapters, adapt, remat=remat)[0]

    def observe(
        self,
        look: Callable[[Any, tuple[str, ...], jax.Array], dict[str, jax.Array]],
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        ends_BT: jax.Array | None = None,
        *,
        adapters: Any = None,
        adapt: Adapt | None = None,
    ) -> dict[str, jax.Array]:
        """Results of `look` for the inputs of all sites, stacked over layers: {name: [L, ...]}.

        `look` is called with the same arguments as `adapt`; it does not change the computation.
        """
        frame = _rows_frame(self.config, tokens_BT, positions_BT, ends_BT)
        return self._scan(tokens_BT, frame, adapters, adapt, look=look)[2]

    def prefill(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None,
        ends_BT: jax.Array | None,
        room: int,
        *,
        adapters: Any = None,
        adapt: Adapt | None = None,
    ) -> tuple[jax.Array, Cache]:
        """Hidden states as in a call, and a cache of these rows, for branches of at most `room` new tokens.

        It has no branches yet; see `Cache.branched`.

        With longrope, a tree's factors are chosen by its longest path and `room` together, so that all keys are rotated
        in the same way, however many tokens follow.
        """
        frame = _rows_frame(self.config, tokens_BT, positions_BT, ends_BT, room)
        hidden_BTD, kept, _ = self._scan(tokens_BT, frame, adapters, adapt, keep=True)
        k, v = (part_LBTKH.swapaxes(2, 3) for part_LBTKH in kept)
        L, B, K, _, H = k.shape
        no_nodes, none = jnp.zeros((B, 0), jnp.int32), jnp.zeros((L, B, 0, K, room, H), k.dtype)
        return hidden_BTD, Cache(k, v, frame.positions_BT, frame.ends_BT, no_nodes, none, none, jnp.int32(0))

    def decode(
        self, tokens_BX: jax.Array, cache: Cache, *, adapters: Any = None, adapt: Adapt | None = None
    ) -> tuple[jax.Array, Cache]:
        """Hidden states of one new token in each branch, float[B, X, D], and the cache with these tokens."""
        frame = _branches_frame(self.config, cache)
        hidden_BXD, kept, _ = self._scan(tokens_BX, frame, adapters, adapt, cache=cache, keep=True)
        return hidden_BXD, cache.added(*kept)

    def _scan(
        self,
        tokens_BT,
        frame: Frame,
        adapters,
        adapt,
        cache: Cache | None = None,
        keep=False,
        remat=False,
        look=None,
    ):
        """(hidden states, keys and values of all layers if `keep`, what `look` saw).

        Between layers the hidden states are split by rows: XLA would else split their width, as the weights are.
        """

        def layer(x_BTD, scanned):
            block, constants, adapters_of_layer, cached = scanned
            seen = {}

            def hook(sites, x_BTI):
                if look is not None:
                    seen.update(look(adapters_of_layer, sites, x_BTI))
                return {} if adapt is None else adapt(adapters_of_layer, sites, x_BTI)

            x_BTD, kept = block(x_BTD, frame, constants, hook, cached)
            return rules.by_rows(x_BTD, self.mesh, frame.row_axes), (kept if keep else None, seen)

        cached = None if cache is None else (cache.k, cache.v, cache.new_k, cache.new_v)
        # Rows are looked up in a whole table: in one that is split as they are, XLA swaps parts between experts. The
        # few tokens of decoding go to the parts instead.
        table_VD = self._table() if cache is None else self.embed[...]
        embedded_BTD = self.embedded(table_VD, tokens_BT, frame.positions_BT)
        x_BTD = rules.by_rows(embedded_BTD, self.mesh, frame.row_axes)
        x_BTD, (kept, seen) = jax.lax.scan(
            keeping(layer, remat), x_BTD, (self.blocks, Layer.stacked(self.config), adapters, cached)
        )
        return self.final_norm(x_BTD), kept, seen

    def embedded(self, table_VD: jax.Array, tokens_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
        """The input of the first layer, float[B, T, D] in the weights' dtype; table_VD: the embedding."""
        x_BTD = jnp.take(table_VD, tokens_BT, axis=0)
        if self.config.embed_scale != 1:
            x_BTD = x_BTD * jnp.asarray(self.config.embed_scale, x_BTD.dtype)
        if self.position_embed is not None:
            x_BTD = x_BTD + jnp.take(self.position_embed[...], positions_BT, axis=0)
        return x_BTD

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Logits, float32[..., V], accumulated in float32; hidden: float[..., D] as the decoder returns it."""
        return self.reader()(hidden)

    def reader(self) -> Callable[[jax.Array], jax.Array]:
        """The function `logits` for several calls: what `fsdp` splits of the head is gathered once for all of them."""
        config, product = self.config, self._tied() if self.head is None else self._untied()

        def read(hidden):
            logits = product(hidden)
            if config.logit_scale != 1:
                logits = logits * config.logit_scale
            cap = config.logit_softcap
            return logits if cap is None else cap * jnp.tanh(logits / cap)

        return read

    def _untied(self):
        bias = None if self.head.bias is None else self.head.bias[...]
        head = Linear(rules.resplit(self.head.kernel[...], P(None, "tensor"), self.mesh), bias)
        return lambda hidden: head(hidden, jnp.float32)

    def _tied(self):
        table_VD = self._table()

        def product(hidden):
            logits = jnp.einsum("...d,vd->...v", hidden, table_VD, preferred_element_type=jnp.float32)
            return logits if self.tied_bias is None else logits + jnp.broadcast_to(self.tied_bias[...], logits.shape)

        return product

    def _table(self) -> jax.Array:
        """The embedding, [V, D], split along `tensor` alone."""
        return rules.resplit(self.embed[...], P("tensor"), self.mesh)


def _rows_frame(config: ModelConfig, tokens_BT, positions_BT, ends_BT, room: int = 0) -> Frame:
    """The frame of rows, with the defaults for positions and ends that are None."""
    T = tokens_BT.shape[1]
    if positions_BT is None:
        positions_BT = jnp.broadcast_to(jnp.arange(T)[None], tokens_BT.shape)
    if ends_BT is None:
        ends_BT = jnp.full(tokens_BT.shape, T)
    positions_BT, ends_BT = positions_BT.astype(jnp.int32), ends_BT.astype(jnp.int32)
    return _frame(config, positions_BT, lambda original: _beyond(positions_BT, ends_BT, original - room), ends_BT)


def _branches_frame(config: ModelConfig, cache: Cache) -> Frame:
    def beyond(original):
        beyond_BS = _beyond(cache.positions, cache.ends, original - cache.room)
        return jnp.take_along_axis(beyond_BS, cache.node, axis=1)

    return _frame(config, cache.next_BX, beyond, cache=cache)


def _frame(config: ModelConfig, positions_BT, beyond, ends_BT=None, cache: Cache | None = None) -> Frame:
    one_rope = len(set(config.ropes)) == 1 and config.ropes[0] is not None
    return Frame(
        positions_BT=positions_BT,
        angles_BTJ=_angles(config, positions_BT, beyond) if one_rope else None,
        query_scale_BT=None if config.position_scale is None else _query_scale(positions_BT, *config.position_scale),
        ends_BT=ends_BT,
        cache=cache,
    )


def _query_scale(positions_BT: jax.Array, weight: float, length: int) -> jax.Array:
    return 1 + weight * jnp.log1p(jnp.floor(positions_BT / length))


def _angles(config: ModelConfig, positions_BT, beyond) -> jax.Array:
    """beyond: a function of the original context that gives, bool[B, T], which tokens are of a longer tree."""
    scaling = config.rope_scaling
    short_J, long_J = (frequencies(config.rope_dim, config.rope_theta, scaling, long) for long in (False, True))
    if config.original is None:
        return rope_angles(positions_BT, short_J)
    beyond_BT1 = beyond(config.original)[:, :, None]
    return jnp.where(beyond_BT1, rope_angles(positions_BT, long_J), rope_angles(positions_BT, short_J))


def _beyond(positions_BT, ends_BT, original: int) -> jax.Array:
    """bool[B, T]: whether the longest path of a token's tree has more than `original` tokens."""

    def row(positions_T, ends_T):
        tree_T = jnp.cumsum((positions_T == 0) & (ends_T > 0))
        last = jax.ops.segment_max(jnp.where(ends_T > 0, positions_T, 0), tree_T, len(tree_T) + 1)
        return last[tree_T] >= original

    return jax.vmap(row)(positions_BT, ends_BT)
