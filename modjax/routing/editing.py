"""Routers that change with their library: experts join and leave, and what there is of the others stays as it is.

What a router has of each expert by itself lies along the E axis of its `per_site` arrays, or along S, which is E or 1
where all experts have the same; `n_experts` counts them. Such a router of a changed library is the old one with a part
more or less. `named` arrays belong to the library as a whole: whoever has any is built anew.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.axis import joined, taken
from modjax.routing.base import Router

R = TypeVar("R", bound=Router)


def extended(router: R, other: R) -> R:
    """The router of both libraries' experts, as `library + other`.

    What it has of each expert is what the two had, bit for bit; where ranks differ the smaller is padded with zeros. It
    is the router that would be built for all of them but for rounding: a compiler may sum in another order for another
    number of experts.

    Args:
      router, other: of one class, built with the same settings; calibrated ones, on the same prompts.

    Raises InputError for routers that differ in class, settings, sites or widths, and for those that are built for a
    library as a whole.
    """
    _check_alike(router, other)
    counts = n_experts(router), n_experts(other)
    changes = {
        field.name: {
            site: _joined(field.metadata["axes"], (array, getattr(other, field.name)[site]), counts)
            for site, array in getattr(router, field.name).items()
        }
        for field in _arrays(router)
    }
    return _changed(router, changes, sum(counts))


def restricted(router: R, ids: Sequence[int]) -> R:
    """The router of these experts, as `library[ids]`; what it has of each is what it had, bit for bit.

    Raises InputError for an expert that there is not or that is chosen twice, where none is, and for routers that are
    built for a library as a whole.
    """
    count = n_experts(router)
    if not 0 < len(set(ids)) == len(ids) or not set(ids) <= set(range(count)):
        raise InputError(f"experts {list(ids)}: expected at least one of 0 to {count - 1}, and none twice")
    kept = np.asarray(ids, np.int32)
    changes = {
        field.name: {site: taken(array, kept) for site, array in getattr(router, field.name).items()}
        for field in _arrays(router)
    }
    return _changed(router, changes, len(ids))


def n_experts(router: Router) -> int:
    """How many experts a router weighs. Raises InputError for routers that are built for a library as a whole."""
    arrays = _arrays(router)
    if hasattr(router, "n_experts"):
        return router.n_experts
    lengths = (array.shape[1] for field in arrays for array in getattr(router, field.name).values())
    return max(lengths)


def _arrays(router) -> list[dataclasses.Field]:
    """The fields of arrays along the expert axis."""
    arrays = [field for field in dataclasses.fields(router) if not field.metadata.get("static")]
    for field in arrays:
        if field.metadata.get("whole") or field.metadata.get("axes", "")[1:2] not in ("E", "S"):
            raise InputError(
                f"the {type(router).__name__} router's {field.name} is of the library as a whole, not of each expert; "
                "build the router anew"
            )
    return arrays


def _check_alike(router, other):
    kind = type(router).__name__
    if type(other) is not type(router):
        raise InputError(f"a {kind} router and a {type(other).__name__} router; expected two of one class")
    for field in dataclasses.fields(router):
        own, others = getattr(router, field.name), getattr(other, field.name)
        if field.metadata.get("static") and field.name != "n_experts" and own != others:
            raise InputError(f"the {kind} routers have {field.name} = {own!r} and {others!r}; expected the same")
        if isinstance(own, dict) and set(own) != set(others):
            raise InputError(
                f"the {kind} routers are for the sites {', '.join(sorted(own))} and {', '.join(sorted(others))}; "
                "expected the same. Build a router for the whole library"
            )


def _joined(axes: str, pair: tuple[jax.Array, jax.Array], counts: tuple[int, int]) -> jax.Array:
    sizes = [dict(zip(axes, array.shape, strict=True)) for array in pair]
    if any(sizes[0][letter] != sizes[1][letter] for letter in axes if letter in "LIO"):
        raise InputError(f"routers with arrays {pair[0].shape} and {pair[1].shape} ({', '.join(axes)}) do not fit")
    # What remains are ranks: rows of zeros add nothing to a length.
    most = {letter: max(size[letter] for size in sizes) for letter in axes}
    padded = [
        jnp.pad(array, [(0, 0 if letter in "ES" else most[letter] - size[letter]) for letter in axes])
        for array, size in zip(pair, sizes, strict=True)
    ]
    return joined(padded, counts) if axes[1] == "S" else jnp.concatenate(padded, axis=1)


def _changed(router, changes, count):
    return dataclasses.replace(router, **changes, **({"n_experts": count} if hasattr(router, "n_experts") else {}))
