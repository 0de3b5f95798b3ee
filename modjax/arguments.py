"""Checks of arguments: Python, NumPy and JAX scalars become plain Python values; anything else is an InputError.

Each function takes the argument's name and value, and returns the value to use. Its error reads
`name=value: expected ...`.
"""

import dataclasses
import operator
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError, suggestion

_LARGEST = float(np.finfo(np.float32).max)
Kind = TypeVar("Kind")
SURROGATE = re.compile("[\ud800-\udfff]")


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
    """A number that is finite in float32, with least <= value <= most and above < value < below; None is no limit.

    Booleans are refused. Whole numbers stay whole, so that they are recorded as they were given.
    """
    scalar = _scalar(value)
    fits = isinstance(scalar, int | float) and not isinstance(scalar, bool) and abs(scalar) <= _LARGEST
    if fits and _within(scalar, least, most) and _strictly_within(scalar, above, below):
        return scalar
    raise refused(name, value, "a finite number" + _limits(least, most, above, below))


def seed(name: str, value: Any) -> int:
    """A seed: a whole number of at most 32 bits, which every generator of random numbers takes."""
    return whole(name, value, least=0, most=2**32 - 1)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    scalar = _scalar(value)
    if isinstance(scalar, bool):
        return scalar
    raise refused(name, value, "True or False")


def text(name: str, value: Any) -> str:
    """A string. Lone surrogates, halves of a character, are refused: no file and no tokenizer takes them."""
    if not isinstance(value, str):
        raise refused(name, value, "a string")
    if SURROGATE.search(value):
        raise refused(name, value, "text without lone surrogates, which are halves of a character")
    return str(value)


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of strings, as a tuple; one string alone is refused."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise refused(name, value, "a list of strings")
    return tuple(text(f"an item of {name}", one) for one in value)


def optional(check: Callable[..., Any]) -> Callable[..., Any]:
    """The check that lets None pass too."""
    return lambda name, value, *limits, **named: None if value is None else check(name, value, *limits, **named)


def title(name: str, value: Any) -> str:
    """A string that names something: not empty, and not of white space alone."""
    if not text(name, value).strip():
        raise refused(name, value, "text that is not blank")
    return str(value)


def path(name: str, value: Any) -> pathlib.Path:
    """A path: a string that is not empty, or an object that stands for one."""
    try:
        found = os.fspath(value)
        encoded = os.fsencode(found)
    except (TypeError, UnicodeEncodeError) as error:
        raise refused(name, value, "a path") from error
    if not isinstance(found, str) or not found or b"\0" in encoded:
        raise refused(name, value, "a path, as text that is not empty")
    return pathlib.Path(found)


def paths(name: str, value: Any) -> list[pathlib.Path]:
    """One path or a list of them, as a list."""
    one = isinstance(value, str | os.PathLike)
    return [path(name, item) for item in ([value] if one else items(name, value, "a path or a list of paths"))]


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """One of the given strings."""
    if isinstance(value, str) and value in choices:
        return value
    raise refused(name, value, f"one of {', '.join(choices)}")


def instance(name: str, value: Any, kind: type[Kind]) -> Kind:
    """An object of a class, of one of several classes, or one that has all members of a protocol."""
    if isinstance(value, kind):
        return value
    named = " or ".join(one.__name__ for one in get_args(kind) or (kind,))
    raise refused(name, value, f"a {named} object")


def known(given: Mapping[str, Any], names: Collection[str], of: str) -> Mapping[str, Any]:
    """Keyword arguments whose names are all known; `of` says in the error what they are arguments of."""
    for name in given:
        if name not in names:
            raise InputError(f"{name}: no such setting of {of}; {suggestion(name, names)}")
    return given


def made(kind: Callable[..., Kind], given: Mapping[str, Any]) -> Kind:
    """A dataclass of settings from keyword arguments whose names are all those of its fields."""
    return kind(**known(given, [field.name for field in dataclasses.fields(kind)], kind.__name__))


def check_fields(settings: Any, names: Iterable[str], check: Callable[..., Any], *limits: Any, **named: Any) -> None:
    """Replaces fields of a frozen dataclass by what a check of this module returns for them."""
    for name in names:
        object.__setattr__(settings, name, check(name, getattr(settings, name), *limits, **named))


def items(name: str, value: Any, expected: str) -> list[Any]:
    """The items of a list, a tuple, another iterable or an array, of which these are the rows.

    A string, bytes, a mapping and a set are refused: their items have another meaning, or no order.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping | Set):
        try:
            return list(value)
        except TypeError:  # an array without axes
            pass
    raise refused(name, value, expected)


def mapping(name: str, value: Any, expected: str) -> dict[Any, Any]:
    """A mapping, as a dictionary."""
    if not isinstance(value, Mapping):
        raise refused(name, value, expected)
    return dict(value)


def dtype(name: str, value: Any, choices: Collection[str]) -> np.dtype:
    """A dtype, its name or its class, which is one of those named."""
    if not isinstance(value, str | type | np.dtype):
        raise refused(name, value, f"one of {', '.join(choices)}")
    try:
        found = jnp.dtype(value)
    except (TypeError, ValueError) as error:  # no dtype; text that NumPy does not take
        raise refused(name, value, f"one of {', '.join(choices)}") from error
    choice(name, found.name, choices)
    return found


def refused(name: str, value: Any, expected: str) -> InputError:
    """The error to raise for an argument."""
    return InputError(f"{name}={shown(value)}: expected {expected}")


def shown(value: Any) -> str:
    """A value as errors show it: in one line of at most 80 characters."""
    line = re.sub(r"\s*\n\s*", " ", repr(value))
    return line if len(line) <= 80 else f"{line[:77]}..."


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


def _within(scalar, least, most):
    return (least is None or scalar >= least) and (most is None or scalar <= most)


def _strictly_within(scalar, above, below):
    return (above is None or scalar > above) and (below is None or scalar < below)


def _limits(least, most, above=None, below=None):
    limits = (("at least", least), ("above", above), ("at most", most), ("below", below))
    found = " and ".join(f"{words} {limit}" for words, limit in limits if limit is not None)
    return found and f", {found}"
