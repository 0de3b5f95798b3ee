"""The collectives of a compiled program: what devices exchange, and along which axes of the mesh."""

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
    kind: str  # one of KINDS
    shape: str  # of the result on one device, as XLA writes it
    axes: tuple[str, ...]  # of the mesh, along which its devices differ


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives in `jax.jit(f).lower(...).compile().as_text()` of a program on this mesh.

    Raises ValueError for a form of device groups that is not known here, rather than to overlook one.
    """
    coordinates = np.indices(mesh.devices.shape).reshape(mesh.devices.ndim, -1)  # [axis, partition]
    found = []
    for line in text.splitlines():
        if instruction := _INSTRUCTION.search(line):
            groups = _groups(line, mesh.devices.size)
            differs = [any(np.ptp(own[group]) > 0 for group in groups) for own in coordinates]
            axes = tuple(name for name, apart in zip(mesh.axis_names, differs, strict=True) if apart)
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
    """mesh['a'=4,'b'=2] {'b'}: devices that differ in `b` alone form a group."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
    joined = re.findall(r"'(\w+)'", joined)
    ids = _iota(dims, order) if dims else np.arange(n)
    behind = [list(sizes).index(name) for name in joined]
    before = [i for i in range(len(sizes)) if i not in behind]
    return ids.reshape(*sizes.values()).transpose(before + behind).reshape(-1, math.prod(sizes[a] for a in joined))


def _iota(dims, order):
    """[4,2]T(1,0): the numbers from 0 in this shape, transposed so, and flattened."""
    dims = _ints(dims)
    return np.arange(math.prod(dims)).reshape(dims).transpose(_ints(order) if order else range(len(dims))).ravel()


def _ints(text):
    return tuple(int(number) for number in text.split(","))
