"""Slots: the places of the experts in work. More experts than slots go through in waves: one ends, the next begins."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from modjax.parallel import rules

EMPTY = -1


@dataclasses.dataclass
class Slots:
    """Which expert is in each of S slots, how far it is, and which experts wait; the same on all processes.

    Experts are numbered 0 to E - 1. Expert e belongs to the processes that hold slot e modulo S: they alone read its
    data, and it is trained in one of their slots.
    """

    owners: Sequence[frozenset[int]]  # of each slot, the processes that hold it
    waiting: list[int]  # in the order in which they begin
    expert_S: np.ndarray = dataclasses.field(init=False)  # int32, EMPTY: none
    step_S: np.ndarray = dataclasses.field(init=False)  # int32, steps that the expert has done

    def __post_init__(self):
        self.expert_S = np.full(len(self.owners), EMPTY, np.int32)
        self.step_S = np.zeros(len(self.owners), np.int32)

    @property
    def number(self) -> int:
        """S, the number of slots."""
        return len(self.owners)

    @property
    def held(self) -> list[int]:
        """The slots with an expert."""
        return np.flatnonzero(self.expert_S != EMPTY).tolist()

    def owners_of(self, expert: int) -> frozenset[int]:
        """The processes that an expert belongs to."""
        return self.owners[expert % len(self.owners)]

    def is_own(self, expert: int) -> bool:
        """Whether the expert belongs to this process."""
        return jax.process_index() in self.owners_of(expert)

    @property
    def steps(self) -> dict[int, int]:
        """{slot with an expert: the steps that it has done}."""
        return {slot: int(self.step_S[slot]) for slot in self.held}

    def fill(self) -> list[int]:
        """Puts the next experts that wait into empty slots; returns these slots."""
        chosen = []
        for slot in np.flatnonzero(self.expert_S == EMPTY).tolist():
            fitting = (expert for expert in self.waiting if self.owners_of(expert) == self.owners[slot])
            expert = next(fitting, EMPTY)
            if expert != EMPTY:
                self.waiting.remove(expert)
                self.expert_S[slot], self.step_S[slot] = expert, 0
                chosen.append(slot)
        return chosen

    def take(self, expert_S: np.ndarray) -> bool:
        """Puts waiting experts into the slots that they had. Returns whether it can: else nothing is changed."""
        if len(expert_S) != self.number:
            return False
        held = {slot: expert for slot, expert in enumerate(expert_S.tolist()) if expert != EMPTY}
        if any(self.owners_of(expert) != self.owners[slot] for slot, expert in held.items()):
            return False
        self.expert_S[:] = expert_S
        self.waiting = [expert for expert in self.waiting if expert not in held.values()]
        return True

    def advance(self) -> None:
        """One step more of every expert in a slot."""
        self.step_S[self.held] += 1

    def empty(self, slots: Iterable[int]) -> None:
        """Takes the experts out of slots."""
        self.expert_S[list(slots)] = EMPTY


def together(slots: Slots, steps: Sequence[int]) -> int:
    """The steps of a run in which each expert does as many as `steps` says, by its number; the slots are used up.

    An expert is measured by one step more, in which others may move: where none does, the run counts no step.
    """
    total, left = 0, {}
    while filled := {slot: steps[slots.expert_S[slot]] + 1 for slot in slots.fill()} | left:
        passed = min(filled.values())
        left = {slot: more - passed for slot, more in filled.items() if more > passed}
        total += passed if left else passed - 1
        slots.empty(filled.keys() - left.keys())
    return total


def owners(n_slots: int, mesh: jax.sharding.Mesh | None) -> list[frozenset[int]]:
    """The processes that hold each of S slots on a mesh; without one each process holds all."""
    if mesh is None:
        return [frozenset([jax.process_index()])] * n_slots
    parts, _ = rules.parts(rules.of_members(n_slots), mesh)
    across = np.vectorize(lambda device: device.process_index)(mesh.devices).reshape(parts, -1)
    return [frozenset(across[slot * parts // n_slots].tolist()) for slot in range(n_slots)]
