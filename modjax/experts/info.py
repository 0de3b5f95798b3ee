"""ExpertInfo: the name, tasks, rank and training history of one expert."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.arguments import number, optional, refused, text, texts, whole
from modjax.experts import names
from modjax.models.hf_names import MODULES

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": jnp.bfloat16}

ORIGIN = ("base", "training", "scores", "dtype", "peft")  # fields that no result of an expert depends on


@dataclasses.dataclass(frozen=True)
class ExpertInfo:
    """Facts about one expert, apart from its arrays.

    NumPy and JAX scalars become Python values, lists tuples, mappings tuples of pairs. Raises InputError naming the
    field for a value that library.json cannot hold.
    """

    name: str
    tasks: tuple[str, ...]  # the tasks it was trained on
    rank: int
    alpha: float
    base: str = ""  # the base model's name
    family: str = "llama"  # the base model's family, which names the modules in a PEFT folder
    fingerprint: str = ""  # of the base model's weights; "" when unknown
    training: tuple[tuple[str, str | int | float], ...] = ()  # settings, as pairs
    failed: int | None = None  # the step, from 1, at which its loss or gradient was not finite; None: it did not fail
    scores: tuple[tuple[str, float], ...] = ()
    # The form of the file that it was read from, so that it can be written in the same form.
    ranks: tuple[tuple[str, tuple[int, ...]], ...] = ()  # {site: rank in each layer, 0 for none}
    dtype: str = "float32"  # of its factors
    peft: str = ""  # its PEFT settings, as JSON

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _CHECKS[field.name](field.name, getattr(self, field.name)))


def _listed(name: str, values: Any, item: Callable[[str, Any], Any]) -> tuple:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise refused(name, values, "a list")
    return tuple(item(name, value) for value in values)


def _pairs(item: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple]:
    """A check of pairs (key, value), or of a mapping, whose values pass `item`."""

    def check(name, values):
        pairs = values.items() if isinstance(values, Mapping) else values
        return _listed(name, pairs, lambda _, pair: _pair(name, pair, item))

    return check


def _pair(name, pair, item):
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise refused(name, pair, "pairs of a key and a value")
    return text(f"a key of {name}", pair[0]), item(f"{name}.{pair[0]}", pair[1])


def _setting(name, value):
    if isinstance(value, str | os.PathLike):
        return _text_or_path(name, value)
    return bool(value) if isinstance(value, bool | np.bool_) else number(name, value)


def _text_or_path(name, value):
    return text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "name": names.check,
    "tasks": texts,
    "rank": lambda name, value: whole(name, value, least=0),
    "alpha": number,
    "base": _text_or_path,
    "family": lambda name, value: arguments.choice(name, value, MODULES),
    "fingerprint": text,
    "training": _pairs(_setting),
    "failed": lambda name, value: optional(whole)(name, value, least=1),
    "scores": _pairs(number),
    "ranks": _pairs(lambda name, value: _listed(name, value, lambda *item: whole(*item, least=0))),
    "dtype": lambda name, value: arguments.choice(name, value, DTYPES),
    "peft": text,
}
