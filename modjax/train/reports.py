"""What a run tells while it runs: lines of metrics, and a progress bar."""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from modjax.parallel import distributed
from modjax.progress import progress_bar
from modjax.train.metrics import MetricsLog
from modjax.train.step import Metrics


class Stepped(NamedTuple):
    """One step of a run."""

    number: int  # of the run, from 1
    steps: dict[str, int]  # {expert: its own step}
    slots: list[int]  # of these experts
    metrics: Metrics
    counts: dict[str, int]  # shown beside the bar


class Reports(contextlib.ExitStack):
    """Metrics on disk and a progress bar, for as long as the context is open."""

    def __init__(
        self,
        folder: pathlib.Path | None,
        names: Sequence[str],
        done: int,
        total: int,
        log_every: int,
        progress: bool,
    ):
        """folder: for metrics.jsonl and TensorBoard; done, total: steps of the run; names: of all experts."""
        super().__init__()
        self._log_every, self._pending = log_every, None
        self._log = self.enter_context(MetricsLog(folder if distributed.is_writer() else None, names, done))
        self._bar = self.enter_context(progress_bar(total, "step", done, progress))

    def step(self, latest: Stepped) -> None:
        """Reports the step before, so that the device never waits for the host."""
        self.flush()
        self._pending = latest

    def flush(self) -> None:
        """Reports the latest step."""
        if self._pending is None:
            return
        (number, steps, slots, metrics, counts), self._pending = self._pending, None
        loss, grad_norm, active = (leaf[slots] for leaf in distributed.gather(metrics))
        mean = loss[active].mean() if active.any() else 0
        self._bar.set_postfix(loss=f"{mean:.3f}", **counts, refresh=False)
        self._bar.update()
        if number % self._log_every == 0:
            self._log.write("train", number, steps, {"loss": loss, "grad_norm": grad_norm})

    def validation(self, number: int, steps: dict[str, int], found: dict[str, np.ndarray]) -> None:
        """Reports a validation, {metric: vector over the experts of `steps`}, after the step of the run."""
        self.flush()
        self._log.write("validation", number, steps, found)
