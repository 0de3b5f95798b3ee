"""Which experts of a library are chosen: by name, by index, by a slice, or by a mask."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from modjax.arguments import items, refused, whole
from modjax.errors import InputError

ACCEPTED = "names or indices of experts, a slice, or a mask with True or False for each expert"
SHOWN = 100  # the most names of experts in an error


def indices(chosen: Any, names: Sequence[str]) -> list[int]:
    """The indices of the chosen experts, in the given order; names: those of all experts.

    A list or array of booleans is a mask. Raises InputError for an unknown expert, for one that is chosen twice, if
    none is chosen, and for anything else than a choice.
    """
    found = _slice(chosen, len(names)) if isinstance(chosen, slice) else _listed(chosen, names)
    if not 0 < len(found) == len(set(found)):
        raise refused("library[...]", chosen, "at least one expert, each at most once")
    return found


def _slice(chosen, count):
    try:
        return list(range(count))[chosen]
    except (TypeError, ValueError) as error:
        raise refused("library[...]", chosen, "a slice of whole numbers") from error


def _listed(chosen, names):
    if isinstance(chosen, np.ndarray | jax.Array):
        chosen = np.asarray(chosen)
    one = isinstance(chosen, str | int | np.generic) or getattr(chosen, "shape", None) == ()
    listed = [chosen] if one else items("library[...]", chosen, ACCEPTED)
    if not one and listed and all(isinstance(item, bool | np.bool_) for item in listed):
        return _masked(listed, names)
    return [_index(item, names) for item in listed]


def _masked(mask, names):
    if len(mask) != len(names):
        raise refused("library[...]", mask, f"a mask of {len(names)}, one truth value per expert")
    return [index for index, chosen in enumerate(mask) if chosen]


def _index(item, names):
    if not isinstance(item, str):
        return range(len(names))[whole("library[...]", item, -len(names), len(names) - 1)]
    if item not in names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(f"no expert {item!r}; the library has {', '.join(names[:SHOWN])}{more}")
    return list(names).index(item)
