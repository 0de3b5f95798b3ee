"""The pure functions of lockstep training: one step, one validation, and early stopping.

The batch is [E, B, T] and the loss of one member on its rows is mapped over E: one forward and backward pass through
the one frozen base trains all members exactly as each alone would be. The loss is a sum of per-member means, and
gradients, clipping, moments and schedules never cross the axis of members. The recipe defines what a member is, most
often an expert, and how its arrays change the decoder.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modjax.data.loader import key_of
from modjax.data.rows import Rows
from modjax.models.decoder import Decoder
from modjax.ops.losses import target_losses
from modjax.parallel import rules
from modjax.train.micro import Groups
from modjax.train.optim import Lengths, rates
from modjax.train.recipe import Recipe, along, member_axis
from modjax.train.settings import Settings


class State(NamedTuple):
    """Everything that a checkpoint of a run holds."""

    step_E: jax.Array  # int32, steps that each member has done
    trained: Any  # the recipe's arrays, float32, the axis of members second
    good: Any  # each member's last trained arrays whose loss was finite; before the first step those it starts with
    opt_state: Any
    active_E: jax.Array  # bool: still trained, neither stopped early nor failed
    failed_E: jax.Array  # int32, the step, from 1, at which a loss or gradient was not finite; 0: none
    best: Any  # each member's trained arrays at its `lowest_E`; None without early stopping
    lowest_E: jax.Array  # float32, each member's lowest validation loss, or minus its highest Rouge-L
    stale_E: jax.Array  # int32, validations since `lowest_E` was measured


class Metrics(NamedTuple):
    loss_E: jax.Array  # float32, nats per target token
    grad_norm_E: jax.Array  # float32, before clipping
    active_E: jax.Array  # bool, whether the member was updated


def member_keys(names: tuple[str, ...], seed: int, sharding: jax.sharding.Sharding | None = None) -> jax.Array:
    """key[E], the random key of each member, which depends only on its name and the seed."""
    return _keys(sharding)(np.asarray([key_of(name, seed) for name in names], np.uint32))


@functools.cache
def _keys(sharding):
    return jax.jit(jax.vmap(jax.random.key), out_shardings=sharding)


def init_state(trained: Any, n_members: int, optimizer: optax.GradientTransformation, settings: Settings) -> State:
    """The state before the first step. It has copies of the arrays, because steps donate the state."""
    return State(
        step_E=jnp.zeros(n_members, jnp.int32),
        trained=jax.tree.map(jnp.copy, trained),
        good=jax.tree.map(jnp.copy, trained),
        opt_state=optimizer.init(trained),
        active_E=jnp.ones(n_members, bool),
        failed_E=jnp.zeros(n_members, jnp.int32),
        best=jax.tree.map(jnp.copy, trained) if settings.patience else None,
        lowest_E=jnp.full(n_members, jnp.inf, jnp.float32),
        stale_E=jnp.zeros(n_members, jnp.int32),
    )


def train_step(
    decoder: Decoder,
    state: State,
    batch: Rows,
    keys_E: jax.Array,
    lengths: Lengths,
    frozen: Any,
    *,
    recipe: Recipe,
    optimizer: optax.GradientTransformationExtraArgs,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[State, Metrics]:
    """One update of every active member. Pure: bind the keyword arguments, then jit it.

    The step, and with it keys and rates, is each member's own, and so is the number of its steps. The loss is that of
    the arrays before the update; a member that has done all its steps is only measured. A member whose loss or gradient
    is not finite goes back to its last arrays whose loss was finite, is marked as failed, and is not trained any
    further. This does not change the other members.
    """
    keys_EB = _row_keys(jax.vmap(jax.random.fold_in)(keys_E, state.step_E), batch)
    count_E = jnp.maximum(_counts(batch), 1)
    sums = functools.partial(member_sums, decoder, recipe=recipe, settings=settings, mesh=mesh)

    def gradients(members, rows, keys_EB):
        trained, frozen, count_E = members

        def objective(trained):
            loss_E = sums(trained, frozen, rows, keys_EB) / count_E
            return jnp.sum(loss_E), loss_E

        return jax.grad(objective, has_aux=True)(trained)

    zeros = jax.tree.map(jnp.zeros_like, (state.trained, count_E))
    groups = Groups.of(*batch.tokens.shape[:2], settings.micro, mesh)
    grads, loss_E = groups.summed(gradients, zeros, (state.trained, frozen, count_E), batch, keys_EB)
    grad_norm_E = jax.vmap(optax.tree.norm, in_axes=1)(grads)
    healthy_E = jnp.isfinite(loss_E) & jnp.isfinite(grad_norm_E)
    active_E = state.active_E & healthy_E
    moving_E = active_E & (state.step_E < lengths.steps_E)
    rate_E = rates(settings, lengths, state.step_E)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.trained, rate_E=rate_E)
    good = where_members(jnp.isfinite(loss_E), state.trained, state.good)
    at_E = jnp.minimum(state.step_E + 1, lengths.steps_E)
    state = state._replace(
        step_E=state.step_E + 1,
        trained=where_members(moving_E, optax.apply_updates(state.trained, updates), good),
        good=good,
        opt_state=where_members(moving_E, opt_state, state.opt_state),
        active_E=active_E,
        failed_E=jnp.where(state.active_E & ~healthy_E, at_E, state.failed_E),
    )
    return state, Metrics(loss_E, grad_norm_E, moving_E)


def loss_sums(
    decoder: Decoder,
    trained: Any,
    frozen: Any,
    batch: Rows,
    keys_E: jax.Array | None = None,
    *,
    recipe: Recipe,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The summed loss and the number of target tokens of each member, both float32[E]; without keys, no dropout."""
    sums = functools.partial(member_sums, decoder, recipe=recipe, settings=settings, mesh=mesh)
    groups, count_E = Groups.of(*batch.tokens.shape[:2], settings.micro, mesh), _counts(batch)
    keys_EB = None if keys_E is None else _row_keys(keys_E, batch)
    total_E = groups.summed(
        lambda members, *by_row: sums(*members, *by_row), jnp.zeros_like(count_E), (trained, frozen), batch, keys_EB
    )
    return total_E, count_E


def member_sums(
    decoder: Decoder,
    trained: Any,
    frozen: Any,
    rows: Rows,
    keys_EB: jax.Array | None,
    *,
    recipe: Recipe,
    settings: Settings,
    mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
    """The summed loss of each member on its rows, float32[E], all at once.

    Members and rows stay two axes, [E, B]: on a mesh each is split along its own mesh axis, which one flattened axis
    [E * B] could not be. XLA still computes one product of all rows with each base weight.
    """
    n_members = rows.tokens.shape[0]
    row_axes, (expert_axis, _) = rules.row_axes(n_members), rules.of_members(n_members)

    def loss_sum(trained, frozen, rows, key_B):
        own, adapters = recipe.attach(decoder, trained, frozen, rows, key_B)
        places = (rows.tokens, rows.positions, rows.ends)
        hidden_BTD = own(*places, **adapters, remat=settings.remat, row_axes=row_axes)
        losses_BM = target_losses(own.reader(), hidden_BTD, rows.at, rows.labels, settings.loss_chunk)
        # `where` instead of a product: the loss of a padded target may be inf, and 0 * inf is nan.
        return jnp.sum(jnp.where(rows.weights > 0, losses_BM * rows.weights, 0))

    frozen, frozen_axes = along(frozen, n_members)
    axes = (1, frozen_axes, 0, None if keys_EB is None else 0)
    mesh_axis = None if mesh is None else expert_axis
    return jax.vmap(loss_sum, axes, spmd_axis_name=mesh_axis)(trained, frozen, rows, keys_EB)


def _counts(batch):
    return jnp.sum(batch.weights, axis=(1, 2))


def _row_keys(keys_E, batch):
    """key[E, B]: dropout of a row depends on its member's key and its index alone, not on the rows beside it."""
    rows_B = jnp.arange(batch.tokens.shape[1])
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys_E, rows_B)


def judge(state: State, found_E: jax.Array, due_E: jax.Array, settings: Settings) -> State:
    """The state after a validation: each member's best arrays are kept, and members without improvement stop.

    Args:
      found_E: float32, the metric named by `settings.stop_by`, lower is better: the loss, or minus Rouge-L.
      due_E: bool, the members whose validation this is; the others stay as they are.
    """
    judged_E = state.active_E & due_E
    better_E = judged_E & (found_E < state.lowest_E)
    stale_E = jnp.where(better_E, 0, state.stale_E + judged_E)
    return state._replace(
        best=where_members(better_E, state.trained, state.best),
        lowest_E=jnp.where(better_E, found_E, state.lowest_E),
        stale_E=stale_E,
        active_E=state.active_E & (stale_E < settings.patience),
    )


def where_members(chosen_E: jax.Array, new: Any, old: Any) -> Any:
    """The arrays of `new` for the chosen members and of `old` for others."""

    def pick(new, old):
        shape = [1] * new.ndim
        shape[member_axis(new)] = -1
        return jnp.where(chosen_E.reshape(shape), new, old)

    return jax.tree.map(pick, new, old)
