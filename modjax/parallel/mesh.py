"""The device mesh: experts are split over `expert`, the frozen base over `fsdp` and `tensor`."""

import math

import jax

from modjax.arguments import instance, items, whole
from modjax.errors import InputError

AXES = ("expert", "fsdp", "tensor")


def make_mesh(expert: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
    """A mesh over all devices with axes ("expert", "fsdp", "tensor"); one size may be -1, for the remaining devices.

    Axes are of type Auto: shardings of inputs are given, XLA chooses those of intermediate arrays.
    Raises InputError unless the product of the sizes is the number of devices.
    """
    devices = jax.devices() if devices is None else items("devices", devices, "a list of devices")
    for device in devices:
        instance("an item of devices", device, jax.Device)
    sizes = [whole(name, size) for name, size in zip(AXES, (expert, fsdp, tensor), strict=True)]
    given = [size for size in sizes if size != -1]
    rest = len(devices) // max(1, math.prod(given))
    filled = [rest if size == -1 else size for size in sizes]
    if len(given) < 2 or min(filled) < 1 or math.prod(filled) != len(devices):
        raise InputError(
            f"mesh {dict(zip(AXES, sizes, strict=True))}: expected sizes whose product is {len(devices)}, the number "
            "of devices; one size may be -1, for the remaining devices"
        )
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(filled, AXES, axis_types=types, devices=devices)
