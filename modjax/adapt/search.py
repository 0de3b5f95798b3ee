"""Minimisation without gradients: nevergrad's NGOpt, one candidate after another."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from modjax.arguments import number, whole
from modjax.errors import InputError


class Found(NamedTuple):
    best: list[float]  # the point of the lowest value; the first one if several have it
    values: list[float]  # the value of every point that was evaluated, in order; the first is that of the origin


def search(objective: Callable[[np.ndarray], float], size: int, budget: int, bound: float, seed: int) -> Found:
    """Searches [-bound, bound]^size for the point of the lowest value, starting at the origin.

    Args:
      objective: function of float64[size]; a value that is not finite counts as the worst.
      budget: the most evaluations, including the one of the origin; a point asked for again is not evaluated again.
      seed: seed of the candidates; the search is as deterministic as the objective.

    Raises InputError if nevergrad is not installed, for budget < 1 and for bound <= 0.
    """
    budget, bound = whole("budget", budget, least=1), number("bound", bound, above=0)
    evaluated = _Evaluated(objective)
    evaluated(np.zeros(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NGOpt's own settings cause warnings of the optimizers it chooses
        optimizer = _optimizer(size, budget, bound, seed)
        for _ in range(budget - 1):
            candidate = optimizer.ask()
            optimizer.tell(candidate, evaluated(np.asarray(candidate.value, np.float64)))
    return Found(evaluated.best.tolist(), evaluated.values)


class _Evaluated:
    """The objective, which remembers the values of all points."""

    def __init__(self, objective):
        self.objective, self.known, self.values = objective, {}, []
        self.best = None

    def __call__(self, point: np.ndarray) -> float:
        key = point.tobytes()
        if key not in self.known:
            value = float(self.objective(point))
            value = value if np.isfinite(value) else float(np.finfo(np.float32).max)
            if self.best is None or value < min(self.values):
                self.best = point
            self.values.append(value)
            self.known[key] = value
        return self.known[key]


def _optimizer(size, budget, bound, seed) -> Any:
    try:
        nevergrad = importlib.import_module("nevergrad")
    except ImportError as error:
        raise InputError("adapt.lorahub needs nevergrad; install it with `pip install modjax[adapt]`") from error
    space = nevergrad.p.Array(init=np.zeros(size)).set_bounds(-bound, bound)
    space.random_state = np.random.RandomState(seed)
    return nevergrad.optimizers.NGOpt(space, budget=budget)
