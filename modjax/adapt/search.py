"""Minimising what has no gradient at hand: nevergrad's NGOpt, one candidate after another."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from modjax.errors import InputError


class Found(NamedTuple):
    best: list[float]  # the point of the lowest value, the first of equals
    values: list[float]  # of every point tried, in order; the first is the start's


def search(objective: Callable[[np.ndarray], float], size: int, budget: int, bound: float, seed: int) -> Found:
    """The lowest of `budget` evaluations over [-bound, bound]^size, from the origin on.

    Args:
      objective: float64[size] to a number; what is not finite counts as the worst.
      budget: evaluations at most, that of the origin among them; a point that is asked for twice is one.

    Deterministic for a seed, as far as the objective is. Raises InputError where nevergrad is not installed, and for
    settings that leave nothing to search.
    """
    if budget < 1 or not bound > 0:
        raise InputError(f"budget={budget}, bound={bound}: expected at least one evaluation and a positive bound")
    evaluated = _Evaluated(objective)
    evaluated(np.zeros(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimisers that NGOpt picks from comment on settings NGOpt gives them
        optimizer = _optimizer(size, budget, bound, seed)
        for _ in range(budget - 1):
            candidate = optimizer.ask()
            optimizer.tell(candidate, evaluated(np.asarray(candidate.value, np.float64)))
    return Found(evaluated.best.tolist(), evaluated.values)


class _Evaluated:
    """The objective with a memory."""

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
        raise InputError("LoraHub's search needs nevergrad; install it with `pip install modjax[adapt]`") from error
    space = nevergrad.p.Array(init=np.zeros(size)).set_bounds(-bound, bound)
    space.random_state = np.random.RandomState(seed)
    return nevergrad.optimizers.NGOpt(space, budget=budget)
