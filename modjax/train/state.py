"""The state of a training run: everything that a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modjax.data.loader import key_of
from modjax.train.settings import Settings


class State(NamedTuple):
    step: jax.Array  # int32, steps done
    trained: Any  # the recipe's arrays, float32, the axis of members second
    good: Any  # each member's last trained arrays whose loss was finite; before the first step those it starts with
    opt_state: Any
    active_E: jax.Array  # bool: still trained, neither stopped early nor failed
    failed_E: jax.Array  # int32, the step, from 1, at which a loss or gradient was not finite; 0: none
    best: Any  # each member's trained arrays at its `lowest_E`; None without early stopping
    lowest_E: jax.Array  # float32, each member's lowest validation loss, or minus its highest Rouge-L
    stale_E: jax.Array  # int32, validations since `lowest_E` was measured


def member_keys(names: tuple[str, ...], seed: int) -> jax.Array:
    """key[E], the random key of each member, which depends only on its name and the seed."""
    return jax.vmap(jax.random.key)(np.asarray([key_of(name, seed) for name in names], np.uint32))


def init_state(trained: Any, n_members: int, optimizer: optax.GradientTransformation, settings: Settings) -> State:
    """The state before the first step. It has copies of the arrays, because steps donate the state."""
    return State(
        step=jnp.int32(0),
        trained=jax.tree.map(jnp.copy, trained),
        good=jax.tree.map(jnp.copy, trained),
        opt_state=optimizer.init(trained),
        active_E=jnp.ones(n_members, bool),
        failed_E=jnp.zeros(n_members, jnp.int32),
        best=jax.tree.map(jnp.copy, trained) if settings.patience else None,
        lowest_E=jnp.full(n_members, jnp.inf, jnp.float32),
        stale_E=jnp.zeros(n_members, jnp.int32),
    )
