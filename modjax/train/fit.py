"""One training run: data in, one jitted step many times, trained arrays out. A killed run resumes when repeated."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from modjax import arguments, lock
from modjax.claim import claim
from modjax.data.tasks import Tasks
from modjax.model import Model
from modjax.parallel import distributed
from modjax.train import finished, memory
from modjax.train.examples import check_settings
from modjax.train.groups import checked_groups
from modjax.train.recipe import Recipe
from modjax.train.run import CHECKPOINTS, Run
from modjax.train.settings import Settings, StopBy

# Settings that change nothing but files and the order of work, so that a run may go on with others. All others are
# recorded: the last bits may depend on remat and loss_chunk.
UNRECORDED = ("save_every", "keep", "log_every", "slots")


class Fitted(NamedTuple):
    """The result of a run, on the host."""

    trained: Any  # each member's last arrays whose loss was finite; with early stopping those of its best validation
    lowest_E: np.ndarray  # float32, the lowest validation loss, or minus the highest Rouge-L; inf if never validated
    failed_E: np.ndarray  # int32, the step, from 1, at which a loss or gradient was not finite; 0: none
    steps_E: np.ndarray  # int32, steps done
    stop_by: StopBy

    @property
    def scores(self) -> tuple[tuple[tuple[str, float], ...], ...]:
        """The scores of each member for its ExpertInfo."""
        found_E = self.lowest_E if self.stop_by == "loss" else -self.lowest_E
        name = f"validation_{self.stop_by}"
        return tuple(((name, float(found)),) if np.isfinite(found) else () for found in found_E)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that each member has done, for its ExpertInfo."""
        return tuple(self.steps_E.tolist())

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

    With several processes each reads the data of its own members and gets the results of all; only the first writes
    files, and all must see the same `workdir`. With `settings.slots` the members are trained in waves, see
    `modjax.train.run`.

    Raises InputError for settings, sites and tasks that do not fit, and for the workdir of another run, and Busy for
    one in which a run is at work, before anything is trained.
    """
    folder, progress = checked_run(workdir, progress)
    check_settings(model.config, model.name, settings)
    groups = checked_groups(groups)
    run = Run(model, tasks, groups, recipe, settings, folder)
    with contextlib.ExitStack() as held:
        if folder is not None:
            own = {"model": model.content, **recipe.made_of()}  # on all processes
            data = (tasks, groups, recipe, settings)
            distributed.from_first(lambda: _claim(folder, _made_of(*data) | own, held))
        results = run.train(progress)
    own = [results[expert] for expert in range(len(groups))]
    trained = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *(one.trained for one in own))
    lowest_E, failed_E, steps_E = (np.stack(numbers) for numbers in list(zip(*own, strict=True))[1:])
    return Fitted(trained, lowest_E, failed_E, steps_E, settings.stop_by)


def checked_run(workdir: str | pathlib.Path | None, progress: bool) -> tuple[pathlib.Path | None, bool]:
    """The folder of a run, and whether it shows its progress. Raises InputError for anything else."""
    return arguments.optional(arguments.path)("workdir", workdir), arguments.flag("progress", progress)


def _claim(folder, made_of, held) -> None:
    """Ties the folder to what the run is made of, and keeps other runs out of it."""
    held.enter_context(lock.locked(folder))
    kept = [folder / CHECKPOINTS, folder / finished.FOLDER, folder / memory.CHOICE]
    claim(folder / "inputs.json", made_of, kept)


def _made_of(tasks, groups, recipe, settings) -> dict[str, Any]:
    """What the result of a run depends on besides its arrays, as plain data with digests."""
    recorded = {name: value for name, value in dataclasses.asdict(settings).items() if name not in UNRECORDED}
    return {
        "kind": type(recipe).__name__,
        "settings": recorded,
        "groups": [[name, list(own)] for name, own in groups.items()],
        "tasks": {name: tasks[name].fingerprint for own in groups.values() for name in own},
    }
