"""Checks of arguments: Python, NumPy and JAX scalars become plain Python values; anything else is an InputError.

Each function takes the argument's name and value, and returns the value to use. Its error reads
`name=value: expected ...`.
"""

import math
import operator
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from modjax.errors import InputError


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """A whole number from `least` to `most`; None is no limit. Floats and booleans are refused."""
    scalar = _scalar(value)
    if isinstance(scalar, int) and not isinstance(scalar, bool) and _within(scalar, least, most):
        return scalar
    raise refused(name, value, "a whole number" + _limits(least, most))


def number(
    name: str,
    value: Any,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number: least <= value <= most, above < value < below; None is no limit. Booleans are refused.

    Whole numbers stay whole, so that they are recorded as they were given.
    """
    scalar = _scalar(value)
    fits = isinstance(scalar, int | float) and not isinstance(scalar, bool) and _finite(scalar)
    if fits and _within(scalar, least, most) and _strictly_within(scalar, above, below):
        return scalar
    raise refused(name, value, "a finite number" + _limits(least, most, above, below))


def flag(name: str, value: Any) -> bool:
    """True or False."""
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        return scalar
    raise refused(name, value, "True or False")


def text(name: str, value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return str(value)
    raise refused(name, value, "a string")


def title(name: str, value: Any) -> str:
    """A string that names something: not empty, and not of white space alone."""
    if not text(name, value).strip():
        raise refused(name, value, "text that is not blank")
    return str(value)


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of the given strings."""
    if isinstance(value, str) and value in choices:
        return value
    raise refused(name, value, f"one of {', '.join(choices)}")


def refused(name: str, value: Any, expected: str) -> InputError:
    """The error to raise for an argument; a long value is shortened."""
    shown = repr(value)
    return InputError(f"{name}={shown if len(shown) <= 80 else shown[:77] + '...'}: expected {expected}")


def _scalar(value):
    """The Python value of a NumPy or JAX scalar, or of an array without axes; other values as they are."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return value.item() if value.ndim == 0 else value
    if isinstance(value, bool | int | float):
        return value
    try:
        return operator.index(value)
    except TypeError:
        return value


def _finite(scalar):
    try:
        return math.isfinite(scalar)
    except OverflowError:
        return False


def _within(scalar, least, most):
    return (least is None or scalar >= least) and (most is None or scalar <= most)


def _strictly_within(scalar, above, below):
    return (above is None or scalar > above) and (below is None or scalar < below)


def _limits(least, most, above=None, below=None):
    limits = (("at least", least), ("above", above), ("at most", most), ("below", below))
    found = " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)
    return found and f", {found}"
