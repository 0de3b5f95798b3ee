"""Meshes: sizes, -1 for the remaining devices, and sizes that do not fit."""

import dataclasses

import jax
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.parallel.mesh import AXES, arranged, make_mesh, shapes_mesh


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 2}, (4, 2, 1)),
        ({"expert": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"expert": 1, "fsdp": 1, "tensor": 8}, (1, 1, 8)),
    ],
)
def test_sizes_and_the_rest(sizes, shape):
    mesh = make_mesh(**sizes)
    assert mesh.axis_names == AXES and mesh.devices.shape == shape
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_a_mesh_of_devices_that_do_not_exist():
    mesh = shapes_mesh(1000, fsdp=10, tensor=2)
    assert dict(mesh.shape) == {"expert": 50, "fsdp": 10, "tensor": 2}
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
    with pytest.raises(InputError, match="product is 1000"):
        shapes_mesh(1000, fsdp=3)


def test_some_devices():
    assert make_mesh(devices=jax.devices()[:2]).devices.shape == (2, 1, 1)


@pytest.mark.parametrize(
    "sizes",
    [
        {"expert": 3},
        {"expert": -1, "fsdp": 3},
        {"expert": -1, "fsdp": -1},
        {"expert": 2, "fsdp": 2},
        {"expert": 0},
        {"fsdp": -2},
        {"expert": 2, "fsdp": -2, "tensor": -2},
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes):
    with pytest.raises(InputError, match=r"mesh \{'expert'.*8"):
        make_mesh(**sizes)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a mesh reads of a device."""

    id: int
    slice_index: int
    coords: tuple[int, ...]
    device_kind: str = "some chip"
    platform: str = "some"


def chips(slices, per_slice, cores=1):
    return [
        Chip(1000 * part + cores * chip + core, part, (chip, 0, 0))
        for part in range(slices)
        for chip in range(per_slice)
        for core in range(cores)
    ]


def parts(mesh, axis):
    """The slices of the devices at each place along an axis."""
    return [{device.slice_index for device in own.flat} for own in np.moveaxis(mesh, axis, 0)]


def test_slices_lie_along_the_experts():
    mesh = arranged(chips(2, 8), (4, 4, 1))
    assert mesh.shape == (4, 4, 1) and len({device.id for device in mesh.flat}) == 16
    assert parts(mesh, 0) == [{0}, {0}, {1}, {1}]


def test_slices_that_experts_cannot_share_lie_along_fsdp():
    assert parts(arranged(chips(2, 8), (1, 16, 1)), 1) == 8 * [{0}] + 8 * [{1}]
    assert parts(arranged(chips(4, 4), (2, 8, 1)), 1) == 4 * [{0, 2}] + 4 * [{1, 3}]


def test_the_cores_of_a_chip_lie_along_the_last_axis():
    mesh = arranged(chips(1, 4, cores=2), (2, 2, 2))
    assert all(one.coords == two.coords for one, two in mesh.reshape(-1, 2))
    mesh = arranged(chips(1, 4, cores=2), (8, 1, 1))
    assert [device.coords[0] for device in mesh.flat] == [0, 0, 1, 1, 2, 2, 3, 3]
