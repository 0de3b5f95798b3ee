"""The compiled functions of one training run, and the placement of their arrays on the mesh."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from modjax.parallel import rules
from modjax.train.optim import per_expert
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings
from modjax.train.step import State, init_state, judge, loss_sums, train_step, where_members


class Programs(NamedTuple):
    """Jitted functions. Their results for members lie along the mesh axis `expert`, so nothing is gathered."""

    fresh: Callable[[Any], State]  # the recipe's given arrays -> the state before the first step
    step: Callable  # (decoder, state, batch, keys_E, lengths, frozen) -> (state, Metrics); the given state is donated
    loss_sums: Callable  # (decoder, trained, frozen, batch) -> (summed losses [E], numbers of target tokens [E])
    judge: Callable  # (state, validation measures [E], which are due [E]) -> state
    entered: (
        Callable  # (state, fresh, chosen [E]) -> state, with the chosen members of `fresh`; the given state is donated
    )
    experts: Callable  # (trained, frozen) -> {site: LoRA}, as `Recipe.experts`


def programs(
    recipe: Recipe, settings: Settings, given: Any, keys_E: jax.Array, mesh: jax.sharding.Mesh | None
) -> Programs:
    """The programs of E members that are trained at the same time; each is compiled at its first call.

    given: the recipe's, of these members.
    """
    optimizer = per_expert(settings, recipe.rates)
    seed = np.uint32(settings.seed)  # an argument, so that the program does not depend on it
    n_members = len(keys_E)

    def fresh(seed, given):
        trained = recipe.start(jax.random.key(seed), given, n_members)
        return init_state(trained, n_members, optimizer, settings)

    state, vector = along_members((jax.eval_shape(fresh, seed, given), keys_E), mesh, recipe)
    step = functools.partial(train_step, recipe=recipe, optimizer=optimizer, settings=settings, mesh=mesh)
    sums = functools.partial(loss_sums, recipe=recipe, settings=settings, mesh=mesh)
    return Programs(
        fresh=functools.partial(jax.jit(fresh, out_shardings=state), seed),
        step=jax.jit(step, donate_argnums=1, out_shardings=(state, vector)),
        loss_sums=jax.jit(sums, out_shardings=vector),
        judge=jax.jit(functools.partial(judge, settings=settings), out_shardings=state),
        entered=jax.jit(entered, donate_argnums=0, out_shardings=state),
        experts=jax.jit(recipe.experts),
    )


class Idle(NamedTuple):
    """What only fills a mesh, so that each of its parts has equally much: it costs what it stands beside, no more."""

    members: int  # that learn nothing
    rows: int  # without tokens, of each member in a step

    @classmethod
    def of(cls, n_members: int, batch: int, mesh: jax.sharding.Mesh | None) -> "Idle":
        """For members with `batch` rows each; the rows of a single member are split over all parts."""
        if mesh is None:
            return cls(0, 0)
        across, along = rules.parts(rules.of_members(n_members), mesh)
        return cls(-n_members % across, -batch % along)


def along_members(tree: Any, mesh: jax.sharding.Mesh | None, recipe: Recipe = Recipe()) -> Any:  # noqa: B008
    """The shardings of scalars, of vectors [E] and of arrays [..., E, ...]; without a mesh None for each."""

    def one(path, leaf):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        partition = (jax.P(), rules.EXPERT)[leaf.ndim] if leaf.ndim < 2 else recipe.partition(names[-1])
        return None if mesh is None else rules.sharding(leaf, partition, mesh)

    return jax.tree.map_with_path(one, tree)


def entered(state: State, fresh: State, chosen_E: jax.Array) -> State:
    """The state in which chosen members begin."""
    return where_members(chosen_E, fresh, state)


def placed(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """Arrays of members as float32 on the mesh; those that lie on one already stay as they are."""

    def put(leaf):
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, jax.sharding.NamedSharding):
            return leaf
        leaf = np.asarray(leaf, np.float32)
        return rules.put(leaf, rules.EXPERT if leaf.ndim == 1 else rules.LORA, mesh)

    return jax.tree.map(put, tree)
