"""Collectives of a compiled program: the data that devices exchange, and along which mesh axes.

A program for several TPU slices is that of one slice. What it exchanges with the others stands there as transfers to
and from the host, which the runtime carries over the network.
"""

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
_TRANSFER = re.compile(r'= \((\w+\[[\d,]*\]).* recv\(.*_xla_megascale_transfer_type="(\w+)"')
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
    channel: int  # the same in all instructions of one asynchronous collective; 0: none; negative: between slices
    network: bool = False  # between TPU slices, of which `group` counts

    @property
    def sent(self) -> int:
        """Bytes that one device sends, with the other n - 1 devices of its group in a ring."""
        n, size = self.group, _bytes(self.shape)
        if self.kind == "all-reduce":
            return 2 * size * (n - 1) // n
        if self.kind == "reduce-scatter":
            return size * (n - 1)
        return size if self.kind.startswith("collective-") else size * (n - 1) // n


def collectives(text: str, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives in `jax.jit(f).lower(...).compile().as_text()` of a program on this mesh.

    Raises ValueError for an unknown notation of device groups, so that no collective is overlooked.
    """
    slices = np.array([_slice(device) for device in mesh.devices.flat])
    own = np.flatnonzero(slices == slices[0])
    every = np.indices(mesh.devices.shape).reshape(mesh.devices.ndim, -1)  # [axis, device]
    coordinates = every[:, own]  # [axis, partition]
    found = []
    for line in text.split("\n"):
        channel = _CHANNEL.search(line)
        channel = int(channel[1]) if channel else 0
        if instruction := _INSTRUCTION.search(line):
            groups = _groups(line, len(own))
            shape, kind, started = instruction.groups()
            if started and kind != "all-reduce":
                shape = _result(shape)
            axes = _axes(mesh, coordinates, groups)
            found.append(Collective(kind, shape, axes, len(groups[0]), channel))
        elif transfer := _TRANSFER.search(line):
            shape, kind = transfer[1], transfer[2].lower().replace("_", "-")
            kind = kind if kind in KINDS else "collective-permute"
            first = [np.flatnonzero(slices == number)[0] for number in np.unique(slices)]
            axes = _axes(mesh, every, [first])
            found.append(Collective(kind, shape, axes, len(first), -channel, network=True))
    return found


def _slice(device) -> int:
    """The TPU slice of a device; other devices form a single program."""
    return device.slice_index if device.platform == "tpu" and hasattr(device, "slice_index") else 0


def _axes(mesh, coordinates, groups) -> tuple[str, ...]:
    """The axes along which devices of a group differ."""
    differs = [any(np.ptp(coordinate[group]) > 0 for group in groups) for coordinate in coordinates]
    return tuple(name for name, different in zip(mesh.axis_names, differs, strict=True) if different)


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
