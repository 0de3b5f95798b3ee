"""Formulas for a step: memory and exchange against compiled programs, and the roofline."""

import dataclasses

import pytest

from modjax.models import local
from modjax.parallel.chips import Chip
from modjax.parallel.mesh import make_mesh, shapes_mesh
from modjax.parallel.program import Program
from modjax.train import estimate, memory
from modjax.train.flops import flops
from modjax.train.job import Job
from modjax.train.settings import Settings

SMALL = {"batch": 4, "length": 64, "rank": 2}


@pytest.fixture(scope="module")
def config():
    """Two layers of SmolLM2's width."""
    return dataclasses.replace(local.config("smollm2-135m"), L=2, V=1000)


@pytest.fixture(scope="module")
def job(config):
    def make(sizes, experts=8, on=shapes_mesh, **settings):
        mesh = None if sizes is None else on(8, **sizes) if on is shapes_mesh else on(**sizes)
        return Job(config, Settings(**SMALL | {"micro": 1} | settings), experts, 16, mesh, "float32")

    return make


def test_the_rows_at_a_time_need_memory(job):
    one, two = (job({"expert": 4, "fsdp": 2}, micro=micro) for micro in (1, 2))
    assert estimate.temporaries(two) - estimate.temporaries(one) == estimate.row_bytes(one)
    assert estimate.temporaries(one) == estimate.gradients(one) + estimate.row_bytes(one)
    assert estimate.gradients(one) == memory.bytes_on_device(one.arguments.state.trained)
    assert estimate.row_bytes(job(None, micro=1, remat=True)) < estimate.row_bytes(one)
    # What a row needs depends neither on the mesh nor on the number of experts.
    assert estimate.row_bytes(job(None, experts=3)) == estimate.row_bytes(one)


def test_weights_are_gathered_in_each_pass_of_each_group_of_rows(job):
    whole = memory.bytes_on_device(job(None).arguments.decoder)
    for micro, groups in ((1, 4), (4, 1)):
        found = job({"expert": 4, "fsdp": 2}, micro=micro)
        sums = 2 * estimate.gradients(found) // 2
        assert estimate.exchange(found) == pytest.approx({"fsdp": 2 * groups * whole // 2 + sums}, rel=0.01)
    assert estimate.exchange(job({"expert": 8})) == estimate.exchange(job(None)) == {}
    sent = estimate.exchange(job({"expert": 4, "tensor": 2}))
    assert sent == {"tensor": 4 * 2 * (2 * 4 * 64) * 576 * 4}  # sums a layer, layers, tokens, width, bytes


def test_the_exchange_of_a_compiled_step_is_about_that_of_the_formula(job):
    found = job({"expert": 4, "fsdp": 2}, on=make_mesh, micro=2)
    wire = Program(found.traced().lower().compile().as_text()).wire(found.mesh)
    assert set(wire) == {"fsdp"} and wire["fsdp"] == pytest.approx(estimate.exchange(found)["fsdp"], rel=0.35)


def test_the_roofline(job, config):
    chip = Chip(memory=1, flops=1e9, bandwidth=1e6, wire=1e5, network=1e3)
    found = job({"expert": 4, "fsdp": 2}, micro=2)
    rows = 8 * 4
    operations = flops(config, rows * 64, rows * 16, rows * 64 * 65 // 2)
    assert estimate.operations(found) == operations
    weights, state = (memory.bytes_on_device(tree) for tree in (job(None).arguments.decoder, found.arguments.state))
    least = estimate.least(found, chip, sent=500, network=20)
    assert least == pytest.approx(
        {
            "compute": operations / 8 / 1e9,
            "memory": (2 * 2 * weights + 2 * state) / 1e6,
            "wire": 0.005,
            "network": 0.02,
        },
        rel=0.01,
    )
    assert "network" not in estimate.least(found, chip._replace(network=None), 500, 20)
    # An idle member takes as long as one that learns, and is no work done.
    idle = job({"expert": 4, "fsdp": 2}, experts=7, micro=2)
    assert estimate.least(idle, chip, 0)["compute"] == pytest.approx(least["compute"])
    assert estimate.operations(idle) == pytest.approx(operations * 7 / 8)


def test_in_waves_only_the_slots_are_at_work(job):
    found = job({"expert": 4, "fsdp": 2}, experts=10, slots=4)
    assert (found.slots, found.waves, found.members) == (4, 3, 4)
    assert estimate.operations(found) == estimate.operations(job(None, experts=4))
    assert job(None, experts=10, slots=16).slots == 10 and job(None, experts=10).waves == 1
