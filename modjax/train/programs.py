"""The compiled functions of one training run, and where their arrays lie on the mesh."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from modjax.models.config import ModelConfig
from modjax.parallel import rules
from modjax.train.optim import per_expert
from modjax.train.settings import Settings
from modjax.train.state import Loras, State, init_loras, init_state
from modjax.train.step import judge, loss_sums, train_step


class Programs(NamedTuple):
    """Jitted functions. Their results that belong to experts lie along `expert`, so nothing gathers them."""

    fresh: Callable[[], State]  # the state with A random and B zero
    started: Callable[[Loras], State]  # experts to start from -> state
    step: Callable  # (decoder, state, batch, keys_E, scale_E) -> (state, Metrics); the given state is used up
    loss_sums: Callable  # (decoder, loras, scale_E, batch) -> (summed losses [E], numbers of target tokens [E])
    judge: Callable[[State, jax.Array], State]  # (state, validation losses [E]) -> state


def programs(config: ModelConfig, settings: Settings, keys_E: jax.Array, mesh: jax.sharding.Mesh | None) -> Programs:
    """The programs of a run of E experts; they are compiled when first called."""
    optimizer = per_expert(settings)
    shapes = {site: config.sites[site] for site in settings.sites}

    def started(loras):
        return init_state(loras, optimizer, settings)

    def fresh():
        return started(init_loras(jax.random.key(settings.seed), len(keys_E), shapes, config.L, settings.rank))

    state, vector = along_experts((jax.eval_shape(fresh), keys_E), mesh)
    step = functools.partial(train_step, optimizer=optimizer, settings=settings, mesh=mesh)
    return Programs(
        fresh=jax.jit(fresh, out_shardings=state),
        started=jax.jit(started, out_shardings=state),
        step=jax.jit(step, donate_argnums=1, out_shardings=(state, vector)),
        loss_sums=jax.jit(functools.partial(loss_sums, settings=settings, mesh=mesh), out_shardings=vector),
        judge=jax.jit(functools.partial(judge, settings=settings), out_shardings=state),
    )


def along_experts(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """The shardings of scalars, of vectors [E] and of factors [L, E, ...]; without a mesh None for each."""

    def one(leaf):
        partition = (jax.P(), rules.EXPERT)[leaf.ndim] if leaf.ndim < 2 else rules.LORA
        return None if mesh is None else rules.sharding(leaf, partition, mesh)

    return jax.tree.map(one, tree)
