"""One training run: data in, one jitted step many times, trained arrays out. A killed run resumes when repeated."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from modjax import arguments
from modjax.checkpoint import Checkpoints
from modjax.claim import claim
from modjax.data import loader
from modjax.data.rows import Rows
from modjax.data.tasks import Tasks
from modjax.errors import Stopped
from modjax.model import Model
from modjax.parallel import distributed, preemption, rules
from modjax.progress import progress_bar
from modjax.train import memory
from modjax.train.answers import Answers
from modjax.train.examples import check_settings, member_rows
from modjax.train.groups import checked_groups
from modjax.train.metrics import MetricsLog
from modjax.train.programs import Idle, Programs, along_members, placed, programs, with_idle
from modjax.train.recipe import Recipe, member_axis
from modjax.train.settings import Settings, StopBy
from modjax.train.step import State, member_keys

CHECKPOINTS = "checkpoints"
# The settings that change nothing but files. All others are recorded: the last bits may depend on remat and loss_chunk.
UNRECORDED = ("save_every", "log_every")


class Fitted(NamedTuple):
    """The result of a run, on the host."""

    trained: Any  # each member's last arrays whose loss was finite; with early stopping those of its best validation
    lowest_E: np.ndarray  # float32, the lowest validation loss, or minus the highest Rouge-L; inf if never validated
    failed_E: np.ndarray  # int32, the step, from 1, at which a loss or gradient was not finite; 0: none
    steps: int  # steps done
    stop_by: StopBy

    @property
    def scores(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        """The scores of each member for its ExpertInfo."""
        found_E = self.lowest_E if self.stop_by == "loss" else -self.lowest_E
        name = f"validation_{self.stop_by}"
        return tuple(((name, float(found)),) if np.isfinite(found) else () for found in found_E)

    @property
    def failed(self) -> tuple[int | None, ...]:
        """The step at which each member failed, for its ExpertInfo."""
        return tuple(step or None for step in self.failed_E.tolist())


def fit(
    model: Model,
    tasks: Tasks,
    groups: Mapping[str, Sequence[str]],
    recipe: Recipe,
    settings: Settings,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
) -> Fitted:
    """Trains the members of a recipe, all in lockstep over the frozen model.

    Args:
      model: from `modjax.load`; its mesh, if it has one, is used for training.
      groups: {member: [task, ...]}, the tasks that each learns from.
      recipe: the trained arrays and how they act.
      workdir: the folder for metrics and checkpoints; a run that was killed continues from there when it is repeated,
        with the same result as an uninterrupted one. Its inputs.json ties it to what the run is made of, and its
        micro.json has the rows that are held at a time, if `settings` leave that open.

    With several processes each gets all members; only the first writes metrics, and all must see the same `workdir`.
    Raises InputError for settings, sites and tasks that do not fit, and for the workdir of another run, before anything
    is trained.
    """
    folder, progress = checked_run(workdir, progress)
    run = _Run(model, tasks, groups, recipe, settings)
    if folder is not None:
        made = made_of(model, tasks, run.groups, recipe, settings)
        kept = [folder / CHECKPOINTS, folder / memory.CHOICE]
        distributed.from_first(lambda: claim(folder / "inputs.json", made, kept))
    state = run.train(folder, progress)
    return run.fitted(run.gathered(state._replace(trained=None, opt_state=None)))


def checked_run(workdir: str | pathlib.Path | None, progress: bool) -> tuple[pathlib.Path | None, bool]:
    """The folder of a run, and whether it shows its progress. Raises InputError for anything else."""
    return arguments.optional(arguments.path)("workdir", workdir), arguments.flag("progress", progress)


def made_of(
    model: Model, tasks: Tasks, groups: Mapping[str, Sequence[str]], recipe: Recipe, settings: Settings
) -> dict[str, Any]:
    """All that the result of a run depends on, as plain data with digests. All processes must call it alike."""
    recorded = {name: value for name, value in dataclasses.asdict(settings).items() if name not in UNRECORDED}
    return {
        "kind": type(recipe).__name__,
        "settings": recorded,
        "groups": [[name, list(own)] for name, own in groups.items()],
        "tasks": {name: tasks[name].fingerprint for own in groups.values() for name in own},
        "model": model.content,
        **recipe.made_of(),
    }


class _Run:
    """The parts of one training run that no step changes: data, keys, compiled programs."""

    def __init__(self, model, tasks, groups, recipe, settings):
        check_settings(model.config, model.name, settings)
        groups = checked_groups(groups)
        self.model, self.groups, self.recipe, self.settings = model, groups, recipe, settings
        self.names = tuple(groups)
        self.idle = self._idle()
        # Idle members have blank names, which no expert may have.
        self.members = (*self.names, *(" " * number for number in range(1, self.idle.members + 1)))
        self.rows = self._rows(tasks, "train")
        self.validation = []
        if settings.evaluate_every:
            validation = loader.padded(self._rows(tasks, "validation"), settings.batch)
            self.validation = [self.place(batch) for batch in validation]
        self.keys_E = self._keys()
        frozen = with_idle(recipe.frozen, len(self.names), self.idle.members)
        self.given, self.frozen = (placed(tree, model.mesh) for tree in (recipe.given, frozen))
        answered = settings.evaluate_every and settings.stop_by == "rouge_l"
        self.answers = self._answers(tasks) if answered else None

    def _answers(self, tasks) -> Answers:
        jax.eval_shape(self.recipe.experts, self._trained(), self.frozen)  # raises if members are not experts
        return Answers(self.model, {name: tasks.select(own) for name, own in self.groups.items()}, self.settings)

    def _idle(self) -> Idle:
        mesh, n_members, batch = self.model.mesh, len(self.names), self.settings.batch
        idle = Idle.of(n_members, batch, mesh)
        for kind, number, whole in (("members", idle.members, n_members), ("rows of a step", idle.rows, batch)):
            if number:
                found = (number, kind, whole + number, dict(mesh.shape))
                logging.warning("%d %s of %d are idle, to fill the mesh %s", *found)
        return idle

    def _rows(self, tasks, split) -> dict[str, Rows]:
        """The rows of each member; an idle one has a row without tokens."""
        rows = member_rows(self.model, tasks, self.groups, self.recipe, self.settings, split)
        empty = Rows(*(np.zeros_like(field[:1]) for field in rows[self.names[0]]))
        return rows | dict.fromkeys(self.members[len(self.names) :], empty)

    def _keys(self):
        like = jax.ShapeDtypeStruct((len(self.members),), np.uint32)
        return member_keys(self.members, self.settings.seed, along_members(like, self.model.mesh))

    def _trained(self):
        """The shapes of the trained arrays."""
        return jax.eval_shape(self.recipe.start, jax.random.key(0), self.given)

    def _programs(self, folder) -> Programs:
        """The programs, with the rows that are held at a time chosen unless they are given."""

        def choose():
            batch = self._with_idle_rows(self._rows_of_steps()[0])
            given = (self.recipe, self._trained(), self.frozen, batch, self.settings)
            return memory.choice(self.model.params, *given, self.model.mesh)

        settings = memory.settled(self.settings, folder, choose)
        return programs(self.recipe, settings, self.given, self.keys_E, self.model.mesh, self.idle.members)

    def place(self, batch: Rows) -> Rows:
        """Host rows [E, B, ...] on the mesh, with idle ones, or on the one device."""
        partition = rules.of_members(len(self.members))
        return Rows(*(rules.put(field, partition, self.model.mesh) for field in self._with_idle_rows(batch)))

    def _with_idle_rows(self, batch: Rows) -> Rows:
        return Rows(*(np.pad(field, ((0, 0), (0, self.idle.rows), (0, 0))) for field in batch))

    def gathered(self, tree: Any) -> Any:
        """Complete arrays of the members on the host, without the idle ones."""
        return jax.tree.map(lambda leaf: _first(leaf, len(self.names)), distributed.gather(tree))

    def train(self, folder, progress) -> State:
        settings, self.programs = self.settings, self._programs(folder)
        state = self.programs.fresh(self.given)
        with contextlib.ExitStack() as stack:
            checkpoints = None
            if folder and settings.save_every:
                checkpoints = stack.enter_context(Checkpoints(folder / CHECKPOINTS, settings.save_every))
                state = checkpoints.restore(state)
            done = int(state.step)
            must_stop = stack.enter_context(preemption.watched())
            log = stack.enter_context(MetricsLog(folder if distributed.is_writer() else None, self.names, done))
            bar = stack.enter_context(progress_bar(settings.steps, "step", done, progress))
            pending = None
            for step, batch in enumerate(self._batches(state), done + 1):
                state, metrics = self.programs.step(
                    self.model.params, state, self.place(batch), self.keys_E, self.frozen
                )
                pending = self._report(log, bar, pending, (step, metrics))
                validated = settings.evaluate_every and step % settings.evaluate_every == 0
                if validated:
                    state = self._validate(state, step, log)
                stop = must_stop(step)
                if checkpoints and (stop or step % settings.save_every == 0):
                    # Flush first: steps before a checkpoint are never rerun, so their metrics would be lost.
                    pending = self._report(log, bar, pending, None)
                    checkpoints.save(step, state, force=stop)
                if stop:
                    kept = "the same command goes on from there" if checkpoints else "nothing was saved"
                    raise Stopped(f"stopped by SIGTERM after step {step} of {settings.steps}; {kept}")
                if validated and not self._goes_on(state):
                    break
            self._report(log, bar, pending, None)
        state = self._measured(state)
        self._name_failures(state)
        return state

    def _measured(self, state) -> State:
        """The state with the arrays after the last update measured too, on the rows of the last step.

        One step more measures them; its own update is not used. So no other program is compiled.
        """
        batch = self.place(self._rows_of_steps()[int(state.step) - 1])
        state, _ = self.programs.step(self.model.params, state, batch, self.keys_E, self.frozen)
        done = state.step - 1
        return state._replace(step=done, failed_E=jnp.minimum(state.failed_E, done))

    def _goes_on(self, state) -> bool:
        return bool(np.any(distributed.gather(state.active_E)))

    def _batches(self, state):
        if not self._goes_on(state):
            return ()
        left = self._rows_of_steps()[int(state.step) :]
        return left.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))

    def _rows_of_steps(self):
        return loader.batches(self.rows, self.settings.batch, self.settings.steps, self.settings.seed)

    def _report(self, log, bar, pending, latest):
        """Logs the step before the one just dispatched, so that the device never waits for the host."""
        if pending:
            step, metrics = pending
            metrics = self.gathered(metrics)
            losses = metrics.loss_E[metrics.active_E]
            bar.set_postfix(loss=f"{losses.sum() / max(len(losses), 1):.3f}", experts=len(losses), refresh=False)
            bar.update()
            if step % self.settings.log_every == 0 or step == self.settings.steps:
                log.write("train", step, {"loss": metrics.loss_E, "grad_norm": metrics.grad_norm_E})
        return latest

    def _validate(self, state, step, log) -> State:
        own = (self.model.params, state.trained, self.frozen)
        sums = [self.programs.loss_sums(*own, batch) for batch in self.validation]
        total_E, count_E = (sum(parts) for parts in zip(*sums, strict=True))
        found = {"loss": self.gathered(total_E / jnp.maximum(count_E, 1))}
        if self.answers:
            experts = self.programs.experts(state.trained, self.frozen)
            found["rouge_l"] = self.answers.rouge_l(self.gathered(experts))
        log.write("validation", step, found)
        # Answers can be scored, and even be right, where a loss is not finite.
        lower_E = found["loss"] if self.settings.stop_by == "loss" else -found["rouge_l"]
        lower_E = np.where(np.isfinite(found["loss"]), lower_E, np.float32(np.inf))
        lower_E = np.pad(lower_E, (0, self.idle.members))
        return self.programs.judge(state, lower_E) if self.settings.patience else state

    def _name_failures(self, state):
        for name, step in zip(self.names, self.gathered(state.failed_E).tolist(), strict=True):
            if step:
                kept = "it keeps its last arrays whose loss was finite"
                logging.warning("expert %s: a loss or gradient was not finite at step %d; %s", name, step, kept)

    def fitted(self, state: State) -> Fitted:
        trained = state.good
        if self.settings.patience:  # a member never validated keeps its last arrays
            trained = jax.tree.map(_pick(np.isfinite(state.lowest_E)), state.best, state.good)
        return Fitted(trained, state.lowest_E, state.failed_E, int(state.step), self.settings.stop_by)


def _first(leaf, n_members):
    """The arrays of the first members; a number, and an array that all share, stay."""
    return leaf[(slice(None),) * member_axis(leaf) + (slice(n_members),)] if leaf.ndim else leaf


def _pick(chosen_E):
    def pick(new, old):
        return np.where(chosen_E.reshape(1, -1, *[1] * (new.ndim - 2)), new, old)

    return pick
