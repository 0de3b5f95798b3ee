"""Routers for a library with experts added or removed, without recomputing anything for the other experts.

This works for routers whose arrays have a part for each expert: `per_site` arrays with an axis E, or S, which is E or 1
(one part for all experts). Parts are then added or removed along this axis, and `n_experts` and `left_out` are updated.
A router with `named` arrays depends on the library as a whole and must be built again.
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
    """The router for the experts of both libraries, `library + other`.

    The parts of each expert are copied bit for bit; smaller ranks are padded with zeros. A router built for the whole
    library differs only by rounding, because sums may be in another order for another number of experts.

    Args:
      router, other: routers of one class, built with the same settings and, if calibrated, on the same prompts.

    Raises InputError for routers that differ in class, settings, sites or widths, and for routers that depend on the
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
    left_out = [*_left_out(router), *(counts[0] + i for i in _left_out(other))]
    return _changed(router, changes, sum(counts), left_out)


def restricted(router: R, ids: Sequence[int]) -> R:
    """The router for some of its experts, as `library[ids]`; the parts of each are copied bit for bit.

    Raises InputError for an unknown expert or one chosen twice, if none is chosen, and for routers that depend on the
    library as a whole.
    """
    count = n_experts(router)
    if not 0 < len(set(ids)) == len(ids) or not set(ids) <= set(range(count)):
        raise InputError(f"experts {list(ids)}: expected at least one of 0 to {count - 1}, each at most once")
    kept = np.asarray(ids, np.int32)
    changes = {
        field.name: {site: taken(array, kept) for site, array in getattr(router, field.name).items()}
        for field in _arrays(router)
    }
    return _changed(router, changes, len(ids), [new for new, old in enumerate(ids) if old in _left_out(router)])


def n_experts(router: Router) -> int:
    """The number of experts of a router. Raises InputError for routers that depend on the library as a whole."""
    arrays = _arrays(router)
    if hasattr(router, "n_experts"):
        return router.n_experts
    lengths = (array.shape[1] for field in arrays for array in getattr(router, field.name).values())
    return max(lengths)


def _left_out(router) -> tuple[int, ...]:
    """The indices of the experts that a router without arrays leaves out."""
    return getattr(router, "left_out", ())


def _arrays(router) -> list[dataclasses.Field]:
    """The fields with arrays along the expert axis."""
    arrays = [field for field in dataclasses.fields(router) if not field.metadata.get("static")]
    for field in arrays:
        if field.metadata.get("whole") or field.metadata.get("axes", "")[1:2] not in ("E", "S"):
            raise InputError(
                f"the {type(router).__name__} router's {field.name} depends on the library as a whole, so experts "
                "cannot be added or removed; build the router again"
            )
    return arrays


def _check_alike(router, other):
    kind = type(router).__name__
    if type(other) is not type(router):
        raise InputError(f"a {kind} router and a {type(other).__name__} router; expected two of the same class")
    for field in dataclasses.fields(router):
        own, others = getattr(router, field.name), getattr(other, field.name)
        if field.metadata.get("static") and field.name not in ("n_experts", "left_out") and own != others:
            raise InputError(f"the {kind} routers have {field.name} = {own!r} and {others!r}; expected the same")
        if isinstance(own, dict) and set(own) != set(others):
            raise InputError(
                f"the {kind} routers are for the sites {', '.join(sorted(own))} and {', '.join(sorted(others))}; "
                "expected the same sites. Build a router for the whole library"
            )


def _joined(axes: str, pair: tuple[jax.Array, jax.Array], counts: tuple[int, int]) -> jax.Array:
    sizes = [dict(zip(axes, array.shape, strict=True)) for array in pair]
    if any(sizes[0][letter] != sizes[1][letter] for letter in axes if letter in "LIO"):
        raise InputError(
            f"arrays {pair[0].shape} and {pair[1].shape} ({', '.join(axes)}) of two routers do not fit one model"
        )
    # The other axes are ranks, which may differ: rows of zeros do not change a norm.
    most = {letter: max(size[letter] for size in sizes) for letter in axes}
    padded = [
        jnp.pad(array, [(0, 0 if letter in "ES" else most[letter] - size[letter]) for letter in axes])
        for array, size in zip(pair, sizes, strict=True)
    ]
    return joined(padded, counts) if axes[1] == "S" else jnp.concatenate(padded, axis=1)


def _changed(router, changes, count, left_out):
    if len(left_out) == count:
        raise InputError("training failed for all experts of the router; expected at least one that did not fail")
    counted = {"n_experts": count, "left_out": tuple(left_out)}
    return dataclasses.replace(router, **changes, **{key: own for key, own in counted.items() if hasattr(router, key)})
