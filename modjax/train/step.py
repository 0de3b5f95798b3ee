"""The pure functions of lockstep training: one step, one validation, one verdict on who goes on.

The batch is [E, B, T] and every row meets one expert only, so one forward and backward pass through the one frozen
base trains all experts exactly as each alone would be: the loss is a sum of per-expert means, and gradients,
clipping, moments and schedules never cross the expert axis.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from modjax.data.pack import Rows
from modjax.models.decoder import Decoder
from modjax.ops.lora import lockstep
from modjax.ops.losses import target_losses
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
) -> tuple[State, Metrics]:
    """One update of every active expert. Pure: jit it with `optimizer` and `settings` bound.

    An expert whose loss or gradient is not finite keeps its last good arrays, is marked failed and takes
    no further part; the others go on untouched.
    """
    keys_E = jax.vmap(jax.random.fold_in, (0, None))(keys_E, state.step)

    def objective(loras):
        loss_E = expert_losses(decoder, loras, scale_E, batch, settings, keys_E)
        return jnp.sum(loss_E), loss_E

    grads, loss_E = jax.grad(objective, has_aux=True)(state.loras)
    grad_norm_E = jax.vmap(optax.global_norm, in_axes=1)(grads)
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
) -> jax.Array:
    """Mean loss over each expert's target tokens, float32[E]; dropout only where keys are given."""
    total_E, count_E = loss_sums(decoder, loras, scale_E, batch, settings, keys_E)
    return total_E / jnp.maximum(count_E, 1)


def loss_sums(decoder, loras, scale_E, batch, settings, keys_E=None) -> tuple[jax.Array, jax.Array]:
    """Summed loss and number of target tokens of each expert, float32[E] twice."""
    n_experts = batch.tokens.shape[0]
    rows = Rows(*(field.reshape(-1, field.shape[-1]) for field in batch))  # [E, B, .] -> [N, .]
    adapters, adapt = _lockstep(decoder, loras, scale_E, settings.dropout, keys_E)
    hidden_NTD, _ = decoder(
        rows.tokens, rows.positions, rows.segments, adapters=adapters, adapt=adapt, remat=settings.remat
    )
    losses_NM = target_losses(decoder.logits, hidden_NTD, rows.at, rows.labels, settings.loss_chunk)
    # `where`, not a product: a padded target of a broken row must not turn 0 * inf into nan.
    losses_NM = jnp.where(rows.weights > 0, losses_NM * rows.weights, 0)
    total_E = jnp.sum(losses_NM.reshape(n_experts, -1), axis=1)
    return total_E, jnp.sum(rows.weights.reshape(n_experts, -1), axis=1)


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


def _lockstep(decoder, loras, scale_E, dropout, keys_E) -> tuple[tuple, Callable]:
    keys_LE = _layer_keys(keys_E, decoder.config.L) if keys_E is not None and dropout else None

    def adapt(layer, sites, x_NTI):
        layer_loras, layer_keys_E = layer
        sites = [site for site in sites if site in layer_loras]
        if layer_keys_E is not None and sites:
            x_NTI = _drop(x_NTI, layer_keys_E, dropout, decoder.config, sites[0])
        return {site: lockstep(x_NTI, layer_loras[site], scale_E) for site in sites}

    return (loras, keys_LE), adapt


def _layer_keys(keys_E, n_layers):
    return jax.vmap(lambda layer: jax.vmap(jax.random.fold_in, (0, None))(keys_E, layer))(jnp.arange(n_layers))


def _drop(x_NTI, keys_E, rate, config, site):
    """Inverted dropout of a shared input; each expert's mask comes from its own key."""
    keys_E = jax.vmap(jax.random.fold_in, (0, None))(keys_E, list(config.sites).index(site))
    shape = (x_NTI.shape[0] // len(keys_E), *x_NTI.shape[1:])
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys_E)
    return jnp.where(keep.reshape(x_NTI.shape), x_NTI / (1 - rate), 0)


def _where(chosen_E, new, old):
    """Experts' arrays from `new` where chosen; the expert axis is 1, or 0 in vectors."""

    def pick(new, old):
        shape = [1] * new.ndim
        shape[min(1, new.ndim - 1)] = -1
        return jnp.where(chosen_E.reshape(shape), new, old)

    return jax.tree.map(pick, new, old)
