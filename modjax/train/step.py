"""The pure functions of lockstep training: one step, one validation, one verdict on who goes on.

The batch is [E, B, T] and the loss of one expert on its rows is mapped over E: one forward and backward pass through
the one frozen base trains all experts exactly as each alone would be. The loss is a sum of per-expert means, and
gradients, clipping, moments and schedules never cross the expert axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from modjax.data.pack import Rows
from modjax.models.decoder import Decoder
from modjax.ops.lora import low_rank
from modjax.ops.losses import target_losses
from modjax.parallel import rules
from modjax.train.settings import Settings
from modjax.train.state import Loras, State


class Metrics(NamedTuple):
    loss_E: jax.Array  # float32, nats a target token
    grad_norm_E: jax.Array  # float32, before clipping
    active_E: jax.Array  # bool, whether the expert moved


def train_step(
    decoder: Decoder,
    state: State,
    batch: Rows,
    keys_E: jax.Array,
    scale_E: jax.Array,
    *,
    optimizer: optax.GradientTransformation,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[State, Metrics]:
    """One update of every active expert. Pure: jit it with what comes by keyword bound.

    An expert whose loss or gradient is not finite keeps its last good arrays, is marked failed and takes
    no further part; the others go on untouched.
    """
    keys_E = jax.vmap(jax.random.fold_in, (0, None))(keys_E, state.step)

    def objective(loras):
        loss_E = expert_losses(decoder, loras, scale_E, batch, settings, keys_E, mesh)
        return jnp.sum(loss_E), loss_E

    grads, loss_E = jax.grad(objective, has_aux=True)(state.loras)
    grad_norm_E = jax.vmap(optax.tree.norm, in_axes=1)(grads)
    healthy_E = jnp.isfinite(loss_E) & jnp.isfinite(grad_norm_E)
    moving_E = state.active_E & healthy_E
    updates, opt_state = optimizer.update(grads, state.opt_state, state.loras)
    state = state._replace(
        step=state.step + 1,
        loras=_where(moving_E, optax.apply_updates(state.loras, updates), state.loras),
        opt_state=_where(moving_E, opt_state, state.opt_state),
        active_E=moving_E,
        failed_E=state.failed_E | (state.active_E & ~healthy_E),
    )
    return state, Metrics(loss_E, grad_norm_E, moving_E)


def expert_losses(
    decoder: Decoder,
    loras: Loras,
    scale_E: jax.Array,
    batch: Rows,
    settings: Settings,
    keys_E: jax.Array | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
    """Mean loss over each expert's target tokens, float32[E]; dropout only where keys are given."""
    total_E, count_E = loss_sums(decoder, loras, scale_E, batch, settings, keys_E, mesh)
    return total_E / jnp.maximum(count_E, 1)


def loss_sums(decoder, loras, scale_E, batch, settings, keys_E=None, mesh=None) -> tuple[jax.Array, jax.Array]:
    """Summed loss and number of target tokens of each expert, float32[E] twice.

    Experts and rows stay two axes, [E, B] and never [E * B]: on a mesh experts lie along one axis, their rows along
    another, and no flattened axis could be split so. XLA still makes one product of all rows with a base weight.
    """
    expert_axis, constrain = None, {}
    if mesh is not None:
        expert_axis, row_axis, _ = rules.fitting(rules.ROWS, batch.tokens.shape, mesh)
        across_rows = jax.sharding.NamedSharding(mesh, jax.P(row_axis))
        constrain = {"constrain": lambda x_BTD: jax.lax.with_sharding_constraint(x_BTD, across_rows)}

    def loss_sum(loras, scale, rows, key):
        adapters, adapt = _adapters(decoder, loras, scale, settings.dropout, key)
        places = (rows.tokens, rows.positions, rows.segments)
        hidden_BTD, _ = decoder(*places, adapters=adapters, adapt=adapt, remat=settings.remat, **constrain)
        losses_BM = target_losses(decoder.logits, hidden_BTD, rows.at, rows.labels, settings.loss_chunk)
        # `where`, not a product: a padded target of a broken row must not turn 0 * inf into nan.
        return jnp.sum(jnp.where(rows.weights > 0, losses_BM * rows.weights, 0)), jnp.sum(rows.weights)

    axes = (1, 0, 0, None if keys_E is None else 0)
    return jax.vmap(loss_sum, axes, spmd_axis_name=expert_axis)(loras, scale_E, batch, keys_E)


def judge(state: State, loss_E: jax.Array, settings: Settings) -> State:
    """After a validation: keeps each expert's best arrays, stops those without recent improvement."""
    better_E = state.active_E & (loss_E < state.best_loss_E)
    stale_E = jnp.where(better_E, 0, state.stale_E + state.active_E)
    return state._replace(
        best=_where(better_E, state.loras, state.best),
        best_loss_E=jnp.where(better_E, loss_E, state.best_loss_E),
        stale_E=stale_E,
        active_E=state.active_E & (stale_E < settings.patience),
    )


def _adapters(decoder, loras, scale, dropout, key) -> tuple[tuple, Callable]:
    """One expert's arrays and keys by layer, and the function that lets the decoder use them."""
    drops = key is not None and dropout > 0
    keys_L = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(decoder.config.L)) if drops else None

    def adapt(layer, sites, x_BTI):
        loras, key = layer
        sites = [site for site in sites if site in loras]
        if key is not None and sites:
            x_BTI = _drop(x_BTI, jax.random.fold_in(key, list(decoder.config.sites).index(sites[0])), dropout)
        return {site: low_rank(x_BTI, loras[site].a, scale * loras[site].b) for site in sites}

    return (loras, keys_L), adapt


def _drop(x, key, rate):
    """Inverted dropout; sites that read one input share its mask."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def _where(chosen_E, new, old):
    """Experts' arrays from `new` where chosen; the expert axis is 1, or 0 in vectors."""

    def pick(new, old):
        shape = [1] * new.ndim
        shape[min(1, new.ndim - 1)] = -1
        return jnp.where(chosen_E.reshape(shape), new, old)

    return jax.tree.map(pick, new, old)
