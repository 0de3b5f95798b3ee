"""The device mesh: experts apart, the frozen base split by fsdp and tensor."""

import jax
import numpy as np

from modjax.errors import InputError

AXES = ("expert", "fsdp", "tensor")


def make_mesh(expert: int = -1, fsdp: int = 1, tensor: int = 1, devices=None) -> jax.sharding.Mesh:
    """A mesh over all devices with axes ("expert", "fsdp", "tensor"); one size may be -1, "the rest".

    Axes are Auto: shardings of inputs are stated, those in between are XLA's to choose.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [expert, fsdp, tensor]
    known = int(np.prod([size for size in sizes if size != -1]))
    if sizes.count(-1) > 1 or known < 1 or len(devices) % known:
        raise InputError(f"mesh {dict(zip(AXES, sizes))}: its product must divide {len(devices)} devices")
    sizes = [len(devices) // known if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise InputError(f"mesh {dict(zip(AXES, sizes))}: expected a product of {len(devices)}, the devices")
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(sizes, AXES, axis_types=types, devices=devices)
