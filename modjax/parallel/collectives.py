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
_INSTRUCTION = re.compile(rf"= (.+?) ({'|'.join(KINDS)})(-start)?\(")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\w*\[([\d,]*)\]")
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
    group: int  # devices that exchange data with each other
    channel: int  # the same in all instructions of one asynchronous collective; 0: it has none
    slices: int = 1  # TPU slices that the devices of a group belong to, at most

    @property
    def sent(self) -> int:
        """Bytes that one device sends, with the other n - 1 devices of its group in a ring."""
        n, size = self.group, _bytes(self.shape)
        if self.kind == "all-reduce":
            return 2 * size * (n - 1) // n
        if self.kind == "reduce-scatter":
            return size * (n - 1)
        return size if self.kind.startswith("collective-") else size * (n - 1) // n

    @property
    def between_slices(self) -> int:
        """The part of `sent` that goes to other slices, on average: one device of each slice sends there."""
        return self.sent * self.slices // self.group if self.slices > 1 else 0


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives in `jax.jit(f).lower(...).compile().as_text()` of a program on this mesh.

    Raises ValueError for an unknown notation of device groups, so that no collective is overlooked.
    """
    coordinates = np.indices(mesh.devices.shape).reshape(mesh.devices.ndim, -1)  # [axis, partition]
    slices = np.array([getattr(device, "slice_index", 0) for device in mesh.devices.flat])
    found = []
    for line in text.split("\n"):
        if instruction := _INSTRUCTION.search(line):
            groups = _groups(line, mesh.devices.size)
            differs = [any(np.ptp(coordinate[group]) > 0 for group in groups) for coordinate in coordinates]
            axes = tuple(name for name, different in zip(mesh.axis_names, differs, strict=True) if different)
            shape, kind, started = instruction.groups()
            if started and kind != "all-reduce":
                shape = _result(shape)
            channel = _CHANNEL.search(line)
            number = int(channel[1]) if channel else 0
            joined = max(len(np.unique(slices[group])) for group in groups)
            found.append(Collective(kind, shape, axes, len(groups[0]), number, joined))
    return found


def _result(shape):
    """The result in the shape of a started collective, (operand, result, ...)."""
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1].strip()


def _bytes(shape):
    """The bytes of an array, or of all arrays of a tuple, from the shape that XLA writes."""
    total = 0
    for kind, dims in _ARRAY.findall(shape):
        bits = 8 if kind == "pred" else int(re.search(r"\d+", kind)[0])
        total += math.prod(_ints(dims) if dims else ()) * bits // 8
    return total


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
