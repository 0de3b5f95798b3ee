"""Meshes: sizes, -1 for the remaining devices, and sizes that do not fit."""

import jax
import pytest

from modjax.errors import InputError
from modjax.parallel.mesh import AXES, make_mesh


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
