"""Collectives of a compiled program: the data that devices exchange, and along which mesh axes."""

import math
import re
from typing import NamedTuple

import jax
import numpy as np

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(?:-start)?\(")
_NUMBERS = r"\[([\d,]+)\]"
_ORDER = r"(?:T\(([\d,]+)\))?"
_LISTED = re.compile(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]+\},?)*)\}")
_IOTA = re.compile(rf"replica_groups={_NUMBERS}<={_NUMBERS}{_ORDER}")
_MESH = re.compile(rf"replica_groups=mesh\[([^\]]+)\](?:, device_ids=\({_NUMBERS}{_ORDER}\))? \{{([^}}:]+)\}}")


class Collective(NamedTuple):
    """One collective operation."""

    kind: str  # one of KINDS
    shape: str  # of the result on one device, as XLA writes it
    axes: tuple[str, ...]  # mesh axes along which the devices of a group differ


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives in `jax.jit(f).lower(...).compile().as_text()` of a program on this mesh.

    Raises ValueError for an unknown notation of device groups, so that no collective is overlooked.
    """
    coordinates = np.indices(mesh.devices.shape).reshape(mesh.devices.ndim, -1)  # [axis, partition]
    found = []
    for line in text.split("\n"):
        if instruction := _INSTRUCTION.search(line):
            groups = _groups(line, mesh.devices.size)
            differs = [any(np.ptp(coordinate[group]) > 0 for group in groups) for coordinate in coordinates]
            axes = tuple(name for name, different in zip(mesh.axis_names, differs, strict=True) if different)
            found.append(Collective(instruction[2], instruction[1], axes))
    return found


def _groups(line, n):
    """Lists of partitions that exchange data, from any of XLA's notations."""
    if found := _LISTED.search(line):
        listed = [[int(i) for i in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", found[1])]
        return listed or [list(range(n))]
    if found := _IOTA.search(line):
        shape, *order = found.groups()
        return _iota(*order).reshape(_ints(shape))
    if found := _MESH.search(line):
        return _along_axes(*found.groups(), n)
    raise ValueError(f"the device groups of this collective are in an unknown notation: {line.strip()}")


def _along_axes(axes, dims, order, joined, n):
    """The groups of mesh['a'=4,'b'=2] {'b'}: devices that differ only in `b` form a group."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    joined = re.findall(r"'(\w+)'", joined)
    ids = _iota(dims, order) if dims else np.arange(n)
    last = [list(sizes).index(name) for name in joined]
    first = [i for i in range(len(sizes)) if i not in last]
    return ids.reshape(*sizes.values()).transpose(first + last).reshape(-1, math.prod(sizes[a] for a in joined))


def _iota(dims, order):
    """The ids of [4,2]T(1,0): 0, 1, ... in this shape, transposed by these axes, flattened."""
    dims = _ints(dims)
    return np.arange(math.prod(dims)).reshape(dims).transpose(_ints(order) if order else range(len(dims))).ravel()


def _ints(text):
    return tuple(int(number) for number in text.split(","))
