"""The loop of a training run: experts take the slots, all are trained step by step, and each leaves when it ends.

A step moves every expert in a slot by one step of its own, so experts that began at different times, or stop early, are
trained side by side. An expert that has done all its steps is measured by one step more, which changes nothing else;
then its result goes to the host, and the next expert takes the slot.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from modjax.checkpoint import Checkpoints
from modjax.data.rows import Rows
from modjax.data.tasks import Tasks
from modjax.errors import Stopped
from modjax.model import Model
from modjax.parallel import distributed, preemption
from modjax.train import memory, resume
from modjax.train.answers import Answers
from modjax.train.finished import Finished, Result
from modjax.train.inputs import Inputs
from modjax.train.programs import programs
from modjax.train.recipe import Recipe, of_members
from modjax.train.reports import Reports, Stepped
from modjax.train.settings import Settings
from modjax.train.slots import together
from modjax.train.step import State

CHECKPOINTS = "checkpoints"


class Run:
    """One training run: its inputs and compiled programs, and the state of the experts in the slots."""

    def __init__(
        self,
        model: Model,
        tasks: Tasks,
        groups: Mapping[str, Sequence[str]],
        recipe: Recipe,
        settings: Settings,
        folder: pathlib.Path | None,
    ):
        self.model, self.names, self.recipe, self.settings, self.folder = model, tuple(groups), recipe, settings, folder
        self.inputs = Inputs(model, tasks, groups, recipe, settings)
        self.slots, self.finished, self.number = self.inputs.slots(), Finished(len(groups), folder), 0
        self.begun: dict[int, State] = {}  # experts that wait, although they have begun: on fewer slots than before
        self.slots.fill()
        self.placed = self.inputs.placed(self.slots)
        self.answers = None
        if settings.evaluate_every and settings.stop_by == "rouge_l":
            jax.eval_shape(recipe.experts, self._trained(), self.placed.frozen)  # raises if members are not experts
            self.answers = Answers(model, {name: tasks.select(own) for name, own in groups.items()}, settings)

    def train(self, progress: bool) -> dict[int, Result]:
        """Trains all experts; {number of the expert: its result}, on every process."""
        settings, folder = self.settings, self.folder
        self.programs = self._programs()
        self.state = self.programs.fresh(self.placed.given)
        if folder and settings.save_every:
            with Checkpoints(folder / CHECKPOINTS, settings.save_every, settings.keep) as checkpoints:
                self._resume(checkpoints)
                self._loop(checkpoints, progress)
        else:
            self._loop(None, progress)
        return self.finished.results

    @property
    def total(self) -> int:
        """The steps of the run: of all waves of experts. Experts that stop early make it fewer."""
        return together(self.inputs.slots(), self.inputs.steps)

    def _loop(self, checkpoints, progress):
        shown = (self.names, self.number, self.total, self.settings.log_every, progress)
        with Reports(self.folder, *shown) as self.reports, preemption.watched() as must_stop:
            while self.slots.held:
                for batch in self.inputs.batches(self.slots):
                    moved, left = self._step(batch)
                    if moved and self.slots.held:
                        self._pause(checkpoints, must_stop(self.number))
                    if left:
                        break
            self.reports.flush()

    def _step(self, batch: Rows) -> tuple[bool, bool]:
        """One step of all experts in slots. Returns whether it has moved some, and whether some have left."""
        inputs = (self.inputs.place(batch), self.placed.keys_E, self.placed.lengths, self.placed.frozen)
        self.state, metrics = self.programs.step(self.model.params, self.state, *inputs)
        self.slots.advance()
        # An expert that had done all its steps was only measured.
        steps = {slot: step for slot, step in self.slots.steps.items() if step <= self._steps_of(slot)}
        left = [slot for slot in self.slots.held if slot not in steps]
        if steps:
            self.number += 1
            self.reports.step(Stepped(self.number, self._named(steps), list(steps), metrics, self._counts()))
        due = [slot for slot, step in steps.items() if self.inputs.is_due(self.slots.expert_S[slot], step)]
        if due:
            left += self._validate(due)
        if left:
            self._leave(left)
        return bool(steps), bool(left)

    def _steps_of(self, slot) -> int:
        """The steps that the expert in a slot does, unless it stops early."""
        return self.inputs.steps[self.slots.expert_S[slot]]

    def _named(self, slots) -> dict[str, int]:
        return {self.names[self.slots.expert_S[slot]]: self.slots.steps[slot] for slot in slots}

    def _counts(self) -> dict[str, int]:
        """For the progress bar of a run in waves."""
        if len(self.names) <= self.slots.number:
            return {}
        return {"done": len(self.finished.results), "waiting": len(self.slots.waiting)}

    def _pause(self, checkpoints, stop):
        """Saves the state if it is time for it, and ends the run if it must stop."""
        if checkpoints and (stop or self.number % self.settings.save_every == 0):
            # Flush first: steps before a checkpoint are never rerun, so their metrics would be lost.
            self.reports.flush()
            self.finished.written(distributed.from_first(self.finished.write))
            checkpoints.save(self.number, self._kept(), force=stop)
        if stop:
            kept = "the same command goes on from there" if checkpoints else "nothing was saved"
            raise Stopped(f"stopped by SIGTERM after step {self.number} of {self.total}; {kept}")

    def _validate(self, due: list[int]) -> list[int]:
        """Validates the experts of the slots that are due; returns the slots of those that go on no longer."""
        own, frozen = (self.model.params, self.state.trained), self.placed.frozen
        sums = [self.programs.loss_sums(*own, frozen, batch) for batch in self.placed.validation]
        total_E, count_E = (sum(parts) for parts in zip(*sums, strict=True))
        found = {"loss": distributed.gather(total_E / jnp.maximum(count_E, 1))[due]}
        if self.answers:
            experts = distributed.gather(self.programs.experts(self.state.trained, frozen))
            chosen = of_members(experts, np.asarray(due), self.slots.number)
            found["rouge_l"] = self.answers.rouge_l(chosen, self.slots.expert_S[due].tolist())
        self.reports.validation(self.number, self._named(due), found)
        if not self.settings.patience:
            return []
        # Answers can be scored, and even be right, where a loss is not finite.
        lower = found["loss"] if self.settings.stop_by == "loss" else -found["rouge_l"]
        lower_E, due_E = np.full(self.slots.number, np.inf, np.float32), np.zeros(self.slots.number, bool)
        lower_E[due], due_E[due] = np.where(np.isfinite(found["loss"]), lower, np.inf), True
        self.state = self.programs.judge(self.state, lower_E, due_E)
        active_E = distributed.gather(self.state.active_E)
        return [slot for slot in due if not active_E[slot]]

    def _leave(self, slots: list[int]) -> None:
        """Keeps the results of the experts in these slots, and lets the next ones in."""
        host = distributed.gather(self.state._replace(trained=None, opt_state=None))
        for slot in slots:
            expert, steps = int(self.slots.expert_S[slot]), min(self.slots.steps[slot], self._steps_of(slot))
            self.finished.results[expert] = found = _result(host, slot, steps)
            if found.failed:
                kept = "it keeps its last arrays whose loss was finite"
                where = (self.names[expert], found.failed, kept)
                logging.warning("expert %s: a loss or gradient was not finite at step %d; %s", *where)
        self.slots.empty(slots)
        self._enter()

    def _enter(self) -> None:
        """Fills empty slots with the next experts: with their part of the state if they have begun, else with a new."""
        chosen = self.slots.fill()
        if not self.slots.held:
            return
        self.placed = self.inputs.placed(self.slots)
        experts = {slot: int(self.slots.expert_S[slot]) for slot in chosen}
        old = {slot: self.begun.pop(expert) for slot, expert in experts.items() if expert in self.begun}
        if new := [slot for slot in chosen if slot not in old]:
            self.state = self.programs.entered(self.state, self.programs.fresh(self.placed.given), self._mask(new))
        if old:
            self.state = self.programs.entered(self.state, resume.filled(self.state, old), self._mask(old))
            self.slots.step_S[list(old)] = [int(part.step_E[0]) for part in old.values()]

    def _mask(self, slots) -> np.ndarray:
        return np.isin(np.arange(self.slots.number), list(slots))

    def _kept(self) -> resume.Kept:
        return resume.kept(self.state, self.slots, self.finished, self.model.mesh)

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        found = resume.restored(checkpoints, self._kept(), self.model.mesh)
        if found is None:
            return
        self.number = checkpoints.newest
        expert_S, finished_E = distributed.gather((found.expert_S, found.finished_E))
        self.finished.read(finished_E, self.state.trained)
        slots = self.inputs.slots()
        slots.waiting = [expert for expert in slots.waiting if expert not in self.finished.results]
        if slots.take(expert_S):
            self.state, self.slots = found.state, slots
            slots.step_S[:] = distributed.gather(found.state.step_E)
            self.placed = self.inputs.placed(slots)
        else:  # other slots, or other processes
            self.begun = resume.members(found.state, expert_S)
            slots.waiting.sort(key=lambda expert: expert not in self.begun)
            self.slots = slots
            self._enter()

    def _programs(self):
        """The programs, with the rows that are held at a time chosen unless they are given."""
        placed, mesh = self.placed, self.model.mesh

        def choose():
            given = (self.recipe, self._trained(), placed.frozen, self.inputs.first(self.slots), self.settings)
            return memory.choice(self.model.params, *given, mesh)

        settings = memory.settled(self.settings, self.folder, choose)
        return programs(self.recipe, settings, placed.given, placed.keys_E, mesh)

    def _trained(self):
        """The shapes of the trained arrays."""
        start = functools.partial(self.recipe.start, n_members=self.slots.number)
        return jax.eval_shape(start, jax.random.key(0), self.placed.given)


def _result(host, slot: int, steps: int) -> Result:
    """The result of the expert in a slot. With early stopping, one that was never validated keeps its last arrays."""
    lowest, failed = host.lowest_E[slot], host.failed_E[slot]
    trained = host.best if host.best is not None and np.isfinite(lowest) else host.good
    return Result(resume.member(trained, slot), lowest, failed, np.int32(steps))
