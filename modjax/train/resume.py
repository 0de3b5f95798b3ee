"""What a checkpoint of a run holds, and how a run goes on from it, on the same number of slots or another."""

from typing import Any, NamedTuple

import jax
import numpy as np

from modjax.checkpoint import Checkpoints
from modjax.parallel import distributed, rules
from modjax.train.finished import Finished
from modjax.train.recipe import member_axis
from modjax.train.slots import EMPTY, Slots
from modjax.train.step import State


class Kept(NamedTuple):
    """The content of a checkpoint."""

    state: State
    expert_S: Any  # int32, the number of the expert in each slot
    finished_E: Any  # uint8[E, 8], digests of the files of the experts that have ended; 0: none


def kept(state: State, slots: Slots, finished: Finished, mesh: jax.sharding.Mesh | None) -> Kept:
    """The content of a checkpoint, on the devices."""
    own = Kept(state, slots.expert_S.copy(), finished.digest_E.copy())
    if mesh is None:
        return own._replace(expert_S=jax.device_put(own.expert_S), finished_E=jax.device_put(own.finished_E))
    expert_S, finished_E = (rules.put(leaf, jax.P(), mesh) for leaf in own[1:])
    return Kept(state, expert_S, finished_E)


def restored(checkpoints: Checkpoints, own: Kept, mesh: jax.sharding.Mesh | None) -> Kept | None:
    """The newest checkpoint, with as many slots as it has; None if there is none.

    With the slots of `own` its arrays lie as those do, else each lies whole on every device.
    """
    shapes = checkpoints.shapes()
    if shapes is None:
        return None
    (n_slots,) = shapes.get("expert_S", own.expert_S.shape)
    if n_slots == len(own.expert_S):
        return checkpoints.restore(own)

    def resized(leaf):
        shape = list(leaf.shape)
        shape[member_axis(leaf)] = n_slots
        sharding = leaf.sharding if mesh is None else jax.NamedSharding(mesh, jax.P())
        return jax.ShapeDtypeStruct(tuple(shape), leaf.dtype, sharding=sharding)

    state, expert_S = jax.tree.map(resized, own[:2])
    return checkpoints.restore(Kept(state, expert_S, own.finished_E))


def members(state: State, expert_S: np.ndarray) -> dict[int, State]:
    """{expert: its part of a state, on the host, the axis of members of size 1}."""
    host = distributed.gather(state)
    return {int(expert): member(host, slot) for slot, expert in enumerate(expert_S) if expert != EMPTY}


def member(tree: Any, slot: int) -> Any:
    """The part of one slot of arrays on the host, the axis of members of size 1."""
    return jax.tree.map(lambda leaf: leaf[(slice(None),) * member_axis(leaf) + (slice(slot, slot + 1),)], tree)


def filled(like: State, parts: dict[int, State]) -> State:
    """A state as `like`, with its shapes and shardings, that has the parts of some slots, and 0 in others."""

    def one(leaf, *own):
        host = np.zeros(leaf.shape, leaf.dtype)
        for slot, part in zip(parts, own, strict=True):
            host[(slice(None),) * member_axis(leaf) + (slice(slot, slot + 1),)] = part
        return jax.make_array_from_callback(host.shape, leaf.sharding, lambda index: host[index])

    return jax.tree.map(one, like, *parts.values())
