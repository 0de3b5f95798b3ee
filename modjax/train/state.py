"""The state of a training run: all that a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modjax.data.loader import key_of
from modjax.ops.lora import LoRA
from modjax.train.settings import Settings

Loras = dict[str, LoRA]


class State(NamedTuple):
    step: jax.Array  # int32, steps done
    loras: Loras  # {site: a[L,E,R,I], b[L,E,R,O]}, float32
    opt_state: Any
    active_E: jax.Array  # bool: neither stopped early nor frozen
    failed_E: jax.Array  # bool: a loss or gradient was not finite
    best: Loras | None  # the experts at their lowest validation loss; None without early stopping
    best_loss_E: jax.Array  # float32
    stale_E: jax.Array  # int32, validations since the lowest


def expert_keys(names: tuple[str, ...], seed: int) -> jax.Array:
    """A random key for each expert from its name, key[E]."""
    return jax.vmap(jax.random.key)(np.asarray([key_of(name, seed) for name in names], np.uint32))


def init_loras(key: jax.Array, n_experts: int, shapes: dict[str, tuple[int, int]], n_layers: int, rank: int) -> Loras:
    """A from U(+-1/sqrt(I)) (Kaiming-uniform), B zero: every expert begins as the base model.

    All experts begin with the same A, as runs of one seed do. Experts of few steps stay near it, so their
    similarity tells what they learned and not where they began, and the mean of their factors is worth something.

    Args:
      shapes: {site: (I, O)}.
    """
    loras = {}
    for site, (width, out) in shapes.items():
        site_key, bound = jax.random.fold_in(key, key_of(site, 0)), width**-0.5
        a = jax.random.uniform(site_key, (n_layers, 1, rank, width), jnp.float32, -bound, bound)
        b = jnp.zeros((n_layers, n_experts, rank, out), jnp.float32)
        loras[site] = LoRA(jnp.broadcast_to(a, (n_layers, n_experts, rank, width)), b)
    return loras


def init_state(loras: Loras, optimizer: optax.GradientTransformation, settings: Settings) -> State:
    """A state before its first step. The experts are copied: the state may be donated."""
    n_experts = next(iter(loras.values())).a.shape[1]
    return State(
        step=jnp.int32(0),
        loras=jax.tree.map(jnp.copy, loras),
        opt_state=optimizer.init(loras),
        active_E=jnp.ones(n_experts, bool),
        failed_E=jnp.zeros(n_experts, bool),
        best=jax.tree.map(jnp.copy, loras) if settings.patience else None,
        best_loss_E=jnp.full(n_experts, jnp.inf, jnp.float32),
        stale_E=jnp.zeros(n_experts, jnp.int32),
    )
