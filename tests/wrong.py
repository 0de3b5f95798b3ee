"""Values of wrong types for every argument of a function, each of which must work or be refused with an InputError."""

import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError

VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "zero": lambda: 0,
    "whole": lambda: 3,
    "negative": lambda: -1,
    "huge": lambda: 10**30,
    "float": lambda: 3.5,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "complex": lambda: 1j,
    "empty text": lambda: "",
    "text": lambda: "x",
    "surrogate": lambda: "\ud800",
    "null character": lambda: "a\0b",
    "long text": lambda: "x" * 5000,
    "bytes": lambda: b"x",
    "missing path": lambda: pathlib.Path("nowhere/at/all"),
    "empty list": list,
    "list of None": lambda: [None],
    "list of text": lambda: ["x"],
    "list of numbers": lambda: [1, 2],
    "list of lists": lambda: [["x"], [1]],
    "tuple": lambda: (1, "x"),
    "empty dict": dict,
    "dict": lambda: {"x": 1},
    "set": lambda: {"x"},
    "generator": lambda: (one for one in ("x", 1)),
    "object": object,
    "class": lambda: dict,
    "function": lambda: len,
    "array": lambda: np.zeros(2),
    "array without axes": lambda: np.float32(2),
    "array of booleans": lambda: np.array([True, False]),
    "array of objects": lambda: np.array([None, "x"], object),
    "array of jax": lambda: jnp.ones((2, 2)),
}


def outcomes(function: Callable[..., Any], good: Callable[[], Mapping[str, Any]]) -> list[str]:
    """Calls a function with each of its arguments replaced by each value; returns what is wrong, a line for each fault.

    Every call must return, or raise an InputError of one sentence. An iterator that it returns is read to its end.

    Args:
      good: gives arguments that work, new ones for each call. Those named here are tried, and all that the function's
        signature names; for `**settings`, those named here alone.
    """
    _call(function, good())
    faults = []
    for name in _names(function, good()):
        for label, make in VALUES.items():
            try:
                _call(function, {**good(), name: make()})
            except InputError as error:
                if "\n" in str(error) or not str(error):
                    faults.append(f"{name} = {label}: {error!r}; expected one sentence")
            except Exception as error:
                faults.append(f"{name} = {label}: {type(error).__name__}: {error}")
    return faults


def _names(function, good) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    varying = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return list(dict.fromkeys([one.name for one in parameters if one.kind not in varying] + list(good)))


def _call(function, arguments):
    """Calls by name; arguments that have no names, as those of `__getitem__`, by position."""
    bound = inspect.signature(function).bind_partial(**arguments)
    result = function(*bound.args, **bound.kwargs)
    if hasattr(result, "__next__"):
        list(result)
