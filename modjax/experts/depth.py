"""The number of layers of the base model that adapters belong to; an adapter to some of its layers does not say."""

from collections.abc import Sequence
from typing import NamedTuple

from modjax.arguments import whole
from modjax.errors import InputError
from modjax.experts.adapter import Adapter
from modjax.experts.places import MOST_LAYERS
from modjax.models import local


class Depth(NamedTuple):
    """A number of layers, and where it comes from, for people."""

    layers: int
    source: str


def of(adapters: Sequence[Adapter], layers: int | None = None) -> Depth:
    """The number of layers that was given, else that of the base model, else that up to the last layer with factors.

    The base model is the one that the adapters name, if it is on this machine.

    Raises InputError if that is less than the adapters have, and if they name base models of different depths.
    """
    if layers is not None:
        return Depth(whole("layers", layers, 1, MOST_LAYERS), "as given")
    if not adapters:
        raise InputError("no adapters; expected at least one")
    last = max(adapters, key=lambda adapter: adapter.layers)
    bases = {adapter.info.base: local.layers(adapter.info.base) for adapter in adapters}
    known = {base: found for base, found in bases.items() if found is not None}
    if not known:
        return Depth(
            last.layers,
            "as many as have factors: the base model is not on this machine; --layers=N gives another number",
        )
    if len(set(known.values())) > 1:
        found = ", ".join(f"{base} ({count} layers)" for base, count in known.items())
        raise InputError(f"adapters to different base models, {found}; expected one base model")
    base, count = next(iter(known.items()))
    if last.layers > count:
        raise InputError(
            f"expert {last.info.name!r} has factors for layer {last.layers - 1}, but {base}, which an adapter names as "
            f"its base model, has {count} layers; give the number with layers=N, on the command line --layers=N"
        )
    return Depth(count, f"as their base model {base!r} has")


def hint(found: int, expected: int) -> str:
    """The end of an error about too few layers: how to read adapters to some layers of a model; "" if not too few."""
    if found >= expected:
        return ""
    return f"; read adapters to some layers with layers={expected}, or modjax convert --layers={expected}"
