"""The state of a training run: all that a checkpoint holds."""

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
    opt_state: Any
    active_E: jax.Array  # bool: neither stopped early nor frozen
    failed_E: jax.Array  # bool: a loss or gradient was not finite
    best: Any  # those arrays where `lowest_E` was measured; None without early stopping
    lowest_E: jax.Array  # float32, each member's lowest validation loss, or minus its highest Rouge-L
    stale_E: jax.Array  # int32, validations since the lowest


def member_keys(names: tuple[str, ...], seed: int) -> jax.Array:
    """A random key for each member from its name, key[E]."""
    return jax.vmap(jax.random.key)(np.asarray([key_of(name, seed) for name in names], np.uint32))


def init_state(trained: Any, n_members: int, optimizer: optax.GradientTransformation, settings: Settings) -> State:
    """A state before its first step. The arrays are copied: the state may be donated."""
    return State(
        step=jnp.int32(0),
        trained=jax.tree.map(jnp.copy, trained),
        opt_state=optimizer.init(trained),
        active_E=jnp.ones(n_members, bool),
        failed_E=jnp.zeros(n_members, bool),
        best=jax.tree.map(jnp.copy, trained) if settings.patience else None,
        lowest_E=jnp.full(n_members, jnp.inf, jnp.float32),
        stale_E=jnp.zeros(n_members, jnp.int32),
    )
