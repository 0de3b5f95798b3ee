"""The device mesh: experts are split over `expert`, the frozen base over `fsdp` and `tensor`."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from modjax.arguments import instance, items, whole
from modjax.errors import InputError

AXES = ("expert", "fsdp", "tensor")
TYPES = (jax.sharding.AxisType.Auto,) * len(AXES)


def make_mesh(expert: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
    """A mesh over all devices with axes ("expert", "fsdp", "tensor"); one size may be -1, for the remaining devices.

    Axes are of type Auto: shardings of inputs are given, XLA chooses those of intermediate arrays. Devices along
    `tensor`, then those along `fsdp`, exchange the most and are the nearest on the interconnect. Slices, which only a
    data center network joins, lie along `expert` as far as its size allows.

    Raises InputError unless the product of the sizes is the number of devices.
    """
    devices = jax.devices() if devices is None else items("devices", devices, "a list of devices")
    for device in devices:
        instance("an item of devices", device, jax.Device)
    return jax.sharding.Mesh(arranged(devices, _filled(len(devices), expert, fsdp, tensor)), AXES, axis_types=TYPES)


def shapes_mesh(number: int, expert: int = -1, fsdp: int = 1, tensor: int = 1) -> jax.sharding.AbstractMesh:
    """The mesh of `make_mesh` over a number of devices that do not exist here: for shapes and shardings alone."""
    return jax.sharding.AbstractMesh(tuple(_filled(number, expert, fsdp, tensor)), AXES, axis_types=TYPES)


def _filled(number, *sizes) -> list[int]:
    """The sizes of the axes, of which one may be -1, for a number of devices."""
    sizes = [whole(name, size) for name, size in zip(AXES, sizes, strict=True)]
    given = [size for size in sizes if size != -1]
    rest = number // max(1, math.prod(given))
    filled = [rest if size == -1 else size for size in sizes]
    if len(given) < 2 or min(filled) < 1 or math.prod(filled) != number:
        raise InputError(
            f"mesh {dict(zip(AXES, sizes, strict=True))}: expected sizes whose product is {number}, the number "
            "of devices; one size may be -1, for the remaining devices"
        )
    return filled


def arranged(devices: Sequence[jax.Device], sizes: Sequence[int]) -> np.ndarray:
    """The devices as an array of these sizes, by their places in slices and on the interconnect of each."""
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0), []).append(device)
    outer, inner = _shared_out(len(slices), sizes)
    parts = np.empty(len(slices), object)
    for number, (_, own) in enumerate(sorted(slices.items())):
        parts[number] = _of_slice(own, inner)
    return np.block(parts.reshape(outer).tolist())


def _shared_out(number: int, sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """(outer, inner) factors of the sizes, the first outer ones as large as possible; their product is `number`."""
    outer, left = [], number
    for size in sizes:
        outer.append(math.gcd(size, left))
        left //= outer[-1]
    return outer, [size // across for size, across in zip(sizes, outer, strict=True)]


def _of_slice(devices: Sequence[jax.Device], sizes: Sequence[int]) -> np.ndarray:
    """The devices of one slice; where a chip is several devices, as on TPU v4, they lie along the last axes."""
    chips: dict[tuple, list[jax.Device]] = {}
    for device in devices:
        chips.setdefault(tuple(getattr(device, "coords", None) or (device.id,)), []).append(device)
    cores = len(next(iter(chips.values())))
    within, across = (factors[::-1] for factors in _shared_out(cores, sizes[::-1]))
    first = {own[0]: own for own in chips.values()}
    arranged = mesh_utils.create_device_mesh(across, list(first), allow_split_physical_axes=True)
    parts = np.empty(arranged.size, object)
    for number, device in enumerate(arranged.flat):
        parts[number] = np.asarray(first[device], object).reshape(within)
    return np.block(parts.reshape(across).tolist())
