"""The inputs of a step: rows, keys and fixed arrays of the experts that are in the slots, placed on the mesh."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from absl import logging

from modjax.data import loader
from modjax.data.rows import Rows
from modjax.data.tasks import Tasks
from modjax.model import Model
from modjax.parallel import rules
from modjax.train import epochs
from modjax.train.examples import member_rows
from modjax.train.optim import Lengths
from modjax.train.programs import Idle, along_members, placed
from modjax.train.recipe import Recipe, of_members
from modjax.train.settings import Settings
from modjax.train.slots import EMPTY, Slots, owners
from modjax.train.step import member_keys


class Placed(NamedTuple):
    """What the steps of the experts in the slots read besides the batches."""

    keys_E: jax.Array  # key[E], E the number of slots
    lengths: Lengths
    given: Any  # the recipe's
    frozen: Any
    validation: list[Rows]  # fields [E, B, ...]; none without validations


class Inputs:
    """The rows of all experts of this process, and what the steps of those in the slots read."""

    def __init__(
        self, model: Model, tasks: Tasks, groups: Mapping[str, Sequence[str]], recipe: Recipe, settings: Settings
    ):
        self.mesh, self.recipe, self.settings, self.names = model.mesh, recipe, settings, tuple(groups)
        at_once = min(settings.slots or len(groups), len(groups))
        self.idle = Idle.of(at_once, settings.batch, model.mesh)
        self.owners = owners(at_once + self.idle.members, model.mesh)
        self._warn()
        of_split = (model, tasks, groups, recipe, settings)
        self.rows = member_rows(*of_split, "train", self.slots().is_own)
        self.validation = member_rows(*of_split, "validation", self.slots().is_own) if settings.evaluate_every else None
        self.steps = [epochs.steps(settings, self.rows.n_rows[name]) for name in self.names]

    def _warn(self):
        n_slots, rows = len(self.owners), self.settings.batch + self.idle.rows
        idle = max(0, n_slots - len(self.names))
        for kind, number, whole in (("members", idle, n_slots), ("rows of a step", self.idle.rows, rows)):
            if number:
                found = (number, kind, whole, dict(self.mesh.shape))
                logging.warning("%d %s of %d are idle, to fill the mesh %s", *found)

    def slots(self) -> Slots:
        """Empty slots, for which all experts wait."""
        return Slots(self.owners, list(range(len(self.names))))

    def placed(self, slots: Slots) -> Placed:
        """The inputs of the experts in the slots."""
        keys = jax.ShapeDtypeStruct((slots.number,), np.uint32)
        keys_E = member_keys(self._members(slots), self.settings.seed, along_members(keys, self.mesh))
        given, frozen = (placed(self._own(tree, slots), self.mesh) for tree in (self.recipe.given, self.recipe.frozen))
        return Placed(keys_E, self._lengths(slots), given, frozen, self._validation(slots) if self.validation else [])

    def is_due(self, expert: int, step: int) -> bool:
        """Whether the expert of this number is validated after its step."""
        return epochs.is_due(self.settings, step, self.rows.n_rows[self.names[expert]])

    def batches(self, slots: Slots) -> Iterator[Rows]:
        """The batches, on the host, of the experts in the slots, until the first of them has been measured."""
        return iter(self._batches(slots).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def first(self, slots: Slots) -> Rows:
        """A batch on the host, with idle rows."""
        return self._with_idle_rows(self._batches(slots)[0])

    def place(self, batch: Rows) -> Rows:
        """A batch [E, B, ...] on the mesh, with idle rows, or on the one device."""
        partition = rules.of_members(len(self.owners))
        return Rows(*(rules.put(field, partition, self.mesh) for field in self._with_idle_rows(batch)))

    def _batches(self, slots):
        last = int(slots.step_S[slots.held].max())
        starts = [slots.steps.get(slot, last) for slot in range(slots.number)]
        left = min(self.steps[slots.expert_S[slot]] + 1 - done for slot, done in slots.steps.items())
        rows, settings = self.rows.of(self._members(slots)), self.settings
        return loader.batches(rows, settings.batch, min(starts) + left, settings.seed, starts, self.rows.targets)

    def _lengths(self, slots) -> Lengths:
        """Those of the experts in the slots, on the mesh; an empty one has a step."""
        steps = [1 if expert == EMPTY else self.steps[expert] for expert in slots.expert_S]
        return Lengths(*(rules.put(leaf, rules.EXPERT, self.mesh) for leaf in Lengths.of(self.settings, steps)))

    def _validation(self, slots):
        rows, n_rows = self.validation.of(self._members(slots)), self.validation.n_rows
        most = max(n_rows[self.names[expert]] for expert in slots.expert_S[slots.held])
        return [self.place(one) for one in loader.padded(rows, self.settings.batch, most, self.validation.targets)]

    def _members(self, slots) -> tuple[str, ...]:
        """The names of the experts in the slots; an empty one has a blank name, which no expert may have."""
        names = enumerate(slots.expert_S.tolist())
        return tuple(" " * (slot + 1) if expert == EMPTY else self.names[expert] for slot, expert in names)

    def _own(self, tree, slots):
        """The arrays of the experts in the slots; those of an empty one are of any."""
        numbers = np.where(slots.expert_S == EMPTY, len(self.names) - 1, slots.expert_S)
        return of_members(tree, numbers, len(self.names))

    def _with_idle_rows(self, batch):
        return Rows(*(np.pad(field, ((0, 0), (0, self.idle.rows), (0, 0))) for field in batch))
