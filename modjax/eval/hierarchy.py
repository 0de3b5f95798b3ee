"""Intervals over other seeds, other tasks and other examples: a hierarchical bootstrap.

The intervals of `modjax.eval.intervals` are about other examples of the same tasks, under one trained library. A claim
about methods is about other runs and other tasks too. Each draw therefore takes seeds and tasks with replacement, and
examples within each task; all methods have the same draws, so that a difference is paired on all three levels.

    figure = 1/S sum_s m_s 1/K sum_k n_k score_sk(c_k),   m ~ Multinomial(S), n ~ Multinomial(K), c_k as in `intervals`

With few seeds their part of an interval is too narrow by a factor of about sqrt((S - 1) / S), as for every bootstrap.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from modjax import arguments, metrics
from modjax.errors import InputError
from modjax.eval import intervals
from modjax.eval.intervals import RESAMPLES, Estimate
from modjax.eval.score import Score

Run = Mapping[str, Mapping[str, Score]]  # {method: {task: score}} of one seed


class Figures:
    """The figures of methods over all seeds, tasks and examples, and their draws."""

    def __init__(
        self,
        runs: Sequence[Run],
        methods: Sequence[str],
        tasks: Sequence[str],
        draws: int = RESAMPLES,
        seed: int = 0,
        fixed: bool = False,
    ):
        """Resamples the scores of `methods` on `tasks` in every run.

        Args:
          runs: {method: {task: score}} of each seed, on the same examples.
          draws: their number; those of examples depend only on `seed` and the tasks' names.
          fixed: whether the figures are about these tasks alone, as those of a suite of benchmarks: then each draw has
            every task once.

        Raises InputError without runs, methods or tasks, for a method without a score of a task, and for scores of
        different examples.
        """
        self.methods, tasks = arguments.texts("methods", methods), arguments.texts("tasks", tasks)
        runs = arguments.items("runs", runs, "a list of {method: {task: score}}")
        if not (runs and self.methods and tasks):
            raise InputError(f"{len(runs)} runs, {len(self.methods)} methods, {len(tasks)} tasks: expected one of each")
        draws = arguments.whole("draws", draws, least=1, most=intervals.MOST)
        columns = [_of(run, number, method) for number, run in enumerate(runs) for method in self.methods]
        shape = (len(runs), len(self.methods))
        rng = np.random.default_rng([arguments.seed("seed", seed), len(runs), len(tasks)])
        runs_DS, tasks_DK = (_shares(rng, number, draws) for number in (len(runs), len(tasks)))
        if arguments.flag("fixed", fixed):
            tasks_DK = np.full_like(tasks_DK, 1 / len(tasks))
        names = [metric.name for metric in metrics.METRICS]
        self.values = {name: np.zeros(shape[1]) for name in names}  # float64[M]
        self.drawn = {name: np.zeros((draws, shape[1])) for name in names}  # float64[D,M]
        for k, task in enumerate(tasks):
            found = intervals.resample(columns, [task], draws, seed)
            for name in names:
                score_DSM = found[name].reshape(draws, *shape)
                self.drawn[name] += tasks_DK[:, k, None] * np.einsum("ds,dsm->dm", runs_DS, score_DSM)
                own_SM = np.asarray([column[task][name] for column in columns]).reshape(shape)
                self.values[name] += own_SM.mean(axis=0) / len(tasks)

    def mean(self, metric: str, method: str) -> Estimate:
        """The mean of a method over seeds and tasks."""
        return self.combined(metric, {method: 1.0})

    def difference(self, metric: str, first: str, second: str) -> Estimate:
        """The mean of the first method minus that of the second; 0 for one and the same."""
        return self.combined(metric, {first: 1.0, second: -1.0} if first != second else {first: 0.0})

    def combined(self, metric: str, weights: Mapping[str, float]) -> Estimate:
        """A weighted sum of the means of methods, {method: weight}."""
        at = [self.methods.index(name) for name in weights]
        w_M = np.asarray(list(weights.values()))
        return Estimate.of(self.values[metric][at] @ w_M, self.drawn[metric][:, at] @ w_M)

    def share(self, metric: str, method: str, bottom: str, top: str) -> Estimate:
        """The share of the gap from one method to another that a method closes: 0 at `bottom`, 1 at `top`.

        NaN where there is no gap.
        """
        m, b, t = (self.methods.index(name) for name in (method, bottom, top))
        all_DM = np.concatenate([self.values[metric][None], self.drawn[metric]])
        with np.errstate(invalid="ignore", divide="ignore"):
            share_D = (all_DM[:, m] - all_DM[:, b]) / (all_DM[:, t] - all_DM[:, b])
        return Estimate.of(share_D[0], share_D[1:])


def _of(run, number, method) -> Mapping[str, Score]:
    if not isinstance(run, Mapping) or method not in run:
        raise InputError(f"run {number} has no scores of method {method!r}; expected them in every run")
    return run[method]


def _shares(rng, number, draws):
    """float64[draws, number], rows that sum to 1: how often each of `number` units is drawn."""
    return rng.multinomial(number, np.full(number, 1 / number), size=draws) / number
