"""Training a library: data in, one jitted step many times, a library out. Killed and run again, it resumes."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from tqdm import tqdm

from modjax.checkpoint import Checkpoints
from modjax.data import loader
from modjax.data.pack import Rows, pack
from modjax.data.tasks import Tasks
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.experts.library import ExpertInfo, Library
from modjax.parallel import distributed, rules
from modjax.train.metrics import MetricsLog
from modjax.train.programs import along_experts, programs
from modjax.train.settings import Settings
from modjax.train.state import State, expert_keys


def train_library(
    model: Any,
    tasks: Tasks,
    groups: Mapping[str, Sequence[str]] | None = None,
    workdir: str | pathlib.Path | None = None,
    init: Library | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Trains one LoRA expert for each group of tasks, all in lockstep over the frozen model.

    Args:
      model: what `modjax.load` returns; its mesh, if it has one, is the training's.
      tasks: what the experts may learn from; held-out tasks are left out.
      groups: {expert: [task, ...]}; by default one expert a task, named after it (a private library). One group of
        all tasks is the shared expert, the clusters of MBC are its experts.
      workdir: where metrics and checkpoints go; a run that was killed continues from there, equal to one that was not.
      init: experts to start from, one for each group in its order; by default A is random and B zero.
      settings: the fields of `modjax.train.settings.Settings`.

    Returns:
      The experts in the order of `groups`; with early stopping, each at its lowest validation loss. Of several
      processes each gets all of them; only the first writes metrics, all must see the same `workdir`.

    Raises InputError for settings, sites, tasks and experts that do not fit, before anything is trained.
    """
    settings = Settings(**settings)
    groups = dict(groups) if groups is not None else {name: (name,) for name in tasks.training}
    run = _Run(model, tasks.training, groups, settings, init)
    state = run.train(None if workdir is None else pathlib.Path(workdir), progress)
    return run.library(distributed.gather(state._replace(opt_state=None)))


class _Run:
    """One training run's fixed parts: data, keys, compiled programs."""

    def __init__(self, model, tasks, groups, settings, init):
        _check(model, groups, settings, init)
        self.model, self.groups, self.settings, self.init = model, groups, settings, init
        self.names = tuple(groups)
        self.rows = self._rows(tasks, "train")
        validation = loader.padded(self._rows(tasks, "validation"), settings.batch) if settings.evaluate_every else []
        self.validation = [self.place(batch) for batch in validation]
        self.keys_E = self._keys()
        self.scale_E = rules.put(self._scale(), rules.EXPERT, model.mesh)
        self.programs = programs(model.config, settings, self.keys_E, model.mesh)

    def _rows(self, tasks, split) -> dict[str, Rows]:
        return {name: _packed(self.model, tasks, own, split, self.settings) for name, own in self.groups.items()}

    def _keys(self):
        def keys():
            return expert_keys(self.names, self.settings.seed)

        return jax.jit(keys, out_shardings=along_experts(jax.eval_shape(keys), self.model.mesh))()

    def _scale(self):
        return np.full(len(self.names), self.settings.alpha / self.settings.rank, np.float32)

    def place(self, batch: Rows) -> Rows:
        """Host rows [E, B, ...] on the mesh, or on the one device."""
        return Rows(*(rules.put(field, rules.ROWS, self.model.mesh) for field in batch))

    def start(self) -> State:
        if self.init is None:
            return self.programs.fresh()
        host = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), self.init.loras)
        return self.programs.started(jax.tree.map(lambda leaf: rules.put(leaf, rules.LORA, self.model.mesh), host))

    def train(self, folder, progress) -> State:
        settings = self.settings
        state = self.start()
        with contextlib.ExitStack() as stack:
            checkpoints = None
            if folder and settings.save_every:
                checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", settings.save_every))
                state = checkpoints.restore(state)
            done = int(state.step)
            log = stack.enter_context(MetricsLog(folder if distributed.is_writer() else None, self.names, done))
            bar = stack.enter_context(tqdm(total=settings.steps, initial=done, unit="step", disable=not progress))
            pending = None
            for step, batch in enumerate(self._batches(state), done + 1):
                state, metrics = self.programs.step(
                    self.model.params, state, self.place(batch), self.keys_E, self.scale_E
                )
                pending = self._report(log, bar, pending, (step, metrics))
                validated = settings.evaluate_every and step % settings.evaluate_every == 0
                if validated:
                    state = self._validate(state, step, log)
                if checkpoints and step % settings.save_every == 0:
                    pending = self._report(log, bar, pending, None)  # what a checkpoint is past is not trained again
                    checkpoints.save(step, state)
                if validated and not self._goes_on(state):
                    break
            self._report(log, bar, pending, None)
        self._name_failures(state)
        return state

    def _goes_on(self, state) -> bool:
        return bool(np.any(distributed.gather(state.active_E)))

    def _batches(self, state):
        if not self._goes_on(state):
            return ()
        rows = loader.batches(self.rows, self.settings.batch, self.settings.steps, self.settings.seed)
        return rows[int(state.step) :].to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))

    def _report(self, log, bar, pending, latest):
        """Writes the step before the one just dispatched: the device never waits for the host."""
        if pending:
            step, metrics = pending
            metrics = distributed.gather(metrics)
            losses = metrics.loss_E[metrics.active_E]
            bar.set_postfix(loss=f"{losses.sum() / max(len(losses), 1):.3f}", experts=len(losses), refresh=False)
            bar.update()
            if step % self.settings.log_every == 0 or step == self.settings.steps:
                log.write("train", step, {"loss": metrics.loss_E, "grad_norm": metrics.grad_norm_E})
        return latest

    def _validate(self, state, step, log) -> State:
        experts = (self.model.params, state.loras, self.scale_E)
        sums = [self.programs.loss_sums(*experts, batch) for batch in self.validation]
        total_E, count_E = (sum(parts) for parts in zip(*sums, strict=True))
        loss_E = total_E / jnp.maximum(count_E, 1)
        log.write("validation", step, {"loss": distributed.gather(loss_E)})
        return self.programs.judge(state, loss_E) if self.settings.patience else state

    def _name_failures(self, state):
        for name, failed in zip(self.names, distributed.gather(state.failed_E), strict=True):
            if failed:
                logging.warning("expert %s: a loss was not finite; it keeps its last good arrays", name)

    def library(self, state: State) -> Library:
        settings, model = self.settings, self.model
        loras = state.loras
        if settings.patience:  # an expert never validated has nothing better than its last arrays
            loras = jax.tree.map(_pick(np.isfinite(state.best_loss_E)), state.best, state.loras)
        training = {"steps": int(state.step), "learning_rate": settings.learning_rate, "seed": settings.seed}
        infos = tuple(
            ExpertInfo(
                name=name,
                tasks=tuple(own),
                rank=settings.rank,
                alpha=settings.alpha,
                base=model.name,
                family=model.config.family,
                fingerprint=model.fingerprint,
                training=tuple(training.items()),
                scores=(("validation_loss", float(best)),) if np.isfinite(best) else (),
            )
            for (name, own), best in zip(self.groups.items(), state.best_loss_E, strict=True)
        )
        return Library(jax.tree.map(jnp.asarray, loras), jnp.asarray(self._scale()), infos)


def _pick(chosen_E):
    return lambda new, old: np.where(chosen_E[None, :, None, None], new, old)


def _check(model, groups, settings, init) -> None:
    config = model.config
    if settings.length > config.context:
        raise InputError(f"length={settings.length}: {model.name} reads at most {config.context} tokens")
    if model.tokenizer is None:
        raise InputError(f"{model.name}: the checkpoint has no tokenizer, so there are no tokens to train on")
    if not groups:
        raise InputError("no groups of tasks: expected at least one, {expert: [task, ...]}")
    unknown = [site for site in settings.sites if site not in config.sites]
    if unknown or not settings.sites:
        raise InputError(f"sites {unknown}: a {config.family} model has {', '.join(config.sites)}")
    if init is None:
        return
    model.check(init)
    found = (len(init), init.rank, set(init.sites), set(np.asarray(init.scale).tolist()))
    expected = (len(groups), settings.rank, set(settings.sites), {settings.alpha / settings.rank})
    if found != expected:
        raise InputError(
            f"init: experts, rank, sites, scales are {found}; the groups and settings of this run ask for {expected}"
        )


def _packed(model, tasks: Tasks, names, split: str, settings: Settings) -> Rows:
    encoded = []
    for task in tasks.select(names).values():
        examples = task.split(split)
        if not examples:
            raise InputError(f"task {task.name!r} has no examples in split {split!r}; expected at least one")
        encoded += encode(model.tokenizer, task, examples, settings.length, settings.system, settings.too_long)
    return pack(encoded, settings.length)
