"""Training a library: data in, one jitted step many times, a library out. Killed and run again, it resumes."""

import contextlib
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import NamedSharding
from tqdm import tqdm

from modjax.checkpoint import Checkpoints
from modjax.data import loader
from modjax.data.pack import Rows, pack
from modjax.data.tasks import Tasks
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.experts.library import ExpertInfo, Library
from modjax.parallel import rules
from modjax.train.metrics import MetricsLog
from modjax.train.optim import per_expert
from modjax.train.settings import Settings
from modjax.train.state import State, expert_keys, init_loras, init_state
from modjax.train.step import judge, loss_sums, train_step


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
      The experts in the order of `groups`; with early stopping, each at its lowest validation loss.
    """
    settings = Settings(**settings)
    groups = dict(groups) if groups is not None else {name: (name,) for name in tasks.training}
    run = _Run(model, tasks.training, groups, settings, init)
    folder = None if workdir is None else pathlib.Path(workdir)
    state = run.train(folder, progress)
    return run.library(jax.device_get(state))


class _Run:
    """One training run's fixed parts: data, optimiser, compiled functions."""

    def __init__(self, model, tasks, groups, settings, init):
        self.model, self.groups, self.settings = model, groups, settings
        self.names = tuple(groups)
        self.rows = {name: _packed(model, tasks, own, "train", settings) for name, own in groups.items()}
        self.keys_E = expert_keys(self.names, settings.seed)
        self.scale_E = jnp.full(len(groups), settings.alpha / settings.rank, jnp.float32)
        self.optimizer = per_expert(settings)
        self.init = init
        bound = dict(optimizer=self.optimizer, settings=settings)
        self.step = jax.jit(functools.partial(train_step, **bound), donate_argnums=1)
        self.loss_sums = jax.jit(functools.partial(loss_sums, settings=settings))
        self.judge = jax.jit(functools.partial(judge, settings=settings))
        self.validation = self._validation(tasks) if settings.evaluate_every else []

    def _validation(self, tasks):
        rows = {name: _packed(self.model, tasks, own, "validation", self.settings) for name, own in self.groups.items()}
        return [self.place(batch) for batch in loader.padded(rows, self.settings.batch)]

    def place(self, batch: Rows) -> Rows:
        """Host rows [E, B, ...] on the mesh, or on the one device."""
        if self.model.mesh is None:
            return jax.device_put(batch)
        return jax.tree.map(self._put(rules.ROWS), batch)

    def _put(self, partition):
        mesh = self.model.mesh
        return lambda leaf: jax.device_put(
            leaf, NamedSharding(mesh, rules.fitting(partition, leaf.shape, mesh))
        )

    def start(self) -> State:
        loras = self.init.loras if self.init else self._fresh()
        state = init_state(loras, self.optimizer, self.settings)
        if self.model.mesh is None:
            return state
        vectors, factors = self._put(rules.EXPERT), self._put(rules.LORA)
        placed = jax.tree.map(lambda leaf: factors(leaf) if leaf.ndim > 1 else vectors(leaf), state._replace(step=None))
        return placed._replace(step=self._put(jax.P())(state.step))

    def _fresh(self):
        settings, config = self.settings, self.model.config
        unknown = [site for site in settings.sites if site not in config.sites]
        if unknown:
            raise InputError(f"sites {unknown}: a {config.family} model has {', '.join(config.sites)}")
        shapes = {site: config.sites[site] for site in settings.sites}
        return init_loras(self.keys_E, shapes, config.L, settings.rank)

    def train(self, folder, progress) -> State:
        settings = self.settings
        state = self.start()
        with contextlib.ExitStack() as stack:
            checkpoints = None
            if folder and settings.save_every:
                checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", settings.save_every))
                state = checkpoints.restore(state)
            done = int(state.step)
            log = stack.enter_context(MetricsLog(folder, self.names, done))
            bar = stack.enter_context(tqdm(total=settings.steps, initial=done, unit="step", disable=not progress))
            pending = None
            for step, batch in enumerate(self._batches(done), done + 1):
                state, metrics = self.step(self.model.params, state, self.place(batch), self.keys_E, self.scale_E)
                pending = self._report(log, bar, pending, (step, metrics))
                if settings.evaluate_every and step % settings.evaluate_every == 0:
                    state = self._validate(state, step, log)
                if checkpoints:
                    checkpoints.save(step, state)
                if settings.patience and not np.any(state.active_E):
                    break
            self._report(log, bar, pending, None)
        self._name_failures(state)
        return state

    def _batches(self, done):
        rows = loader.batches(self.rows, self.settings.batch, self.settings.steps, self.settings.seed)[done:]
        return rows.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))

    def _report(self, log, bar, pending, latest):
        """Writes the step before the one just dispatched: the device never waits for the host."""
        if pending:
            step, metrics = pending
            metrics = jax.device_get(metrics)
            losses = metrics.loss_E[metrics.active_E]
            bar.set_postfix(loss=f"{losses.sum() / max(len(losses), 1):.3f}", experts=len(losses), refresh=False)
            bar.update()
            if step % self.settings.log_every == 0 or step == self.settings.steps:
                log.write("train", step, {"loss": metrics.loss_E, "grad_norm": metrics.grad_norm_E})
        return latest

    def _validate(self, state, step, log) -> State:
        sums = [self.loss_sums(self.model.params, state.loras, self.scale_E, batch) for batch in self.validation]
        total_E, count_E = (sum(parts) for parts in zip(*sums, strict=True))
        loss_E = total_E / jnp.maximum(count_E, 1)
        log.write("validation", step, {"loss": loss_E})
        return self.judge(state, loss_E) if self.settings.patience else state

    def _name_failures(self, state):
        for name, failed in zip(self.names, np.asarray(state.failed_E), strict=True):
            if failed:
                logging.warning("expert %s: a loss was not finite; it keeps its last good arrays", name)

    def library(self, state: State) -> Library:
        settings, model = self.settings, self.model
        loras = state.loras
        if settings.patience:  # an expert never validated has nothing better than its last arrays
            loras = jax.tree.map(_pick(np.isfinite(state.best_loss_E)), state.best, state.loras)
        infos = tuple(
            ExpertInfo(
                name=name,
                tasks=tuple(own),
                rank=settings.rank,
                alpha=settings.alpha,
                base=model.name,
                family=model.config.family,
                fingerprint=model.fingerprint,
                training=(("steps", int(state.step)), ("learning_rate", settings.learning_rate), ("seed", settings.seed)),
                scores=(("validation_loss", float(best)),) if np.isfinite(best) else (),
            )
            for (name, own), best in zip(self.groups.items(), state.best_loss_E, strict=True)
        )
        return Library(jax.tree.map(jnp.asarray, loras), jax.device_get(self.scale_E), infos)


def _pick(chosen_E):
    return lambda new, old: np.where(chosen_E[None, :, None, None], new, old)


def _packed(model, tasks: Tasks, names, split: str, settings: Settings) -> Rows:
    encoded = []
    for task in tasks.select(names).values():
        examples = task.split(split)
        if not examples:
            raise InputError(f"task {task.name!r} has no examples in split {split!r}; expected at least one")
        encoded += encode(model.tokenizer, task, examples, settings.length, settings.system, settings.too_long)
    return pack(encoded, settings.length)
