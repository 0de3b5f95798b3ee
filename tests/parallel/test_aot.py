"""Compiling for devices that are not there: what is refused, and with libtpu a real program."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from modjax.errors import InputError
from modjax.parallel import aot, chips


@pytest.mark.parametrize("name", ["", "tpu", "v5e", "v5e:", "v9:2x2", "v5e:16", "v5e:axb", "h100", "h100:0", "gpu:8"])
def test_names_of_topologies_that_are_none(name):
    with pytest.raises(InputError, match=r"expected cpu, laptop, TPUs such as v5e:16x16 \(v4, .*, or h100:8 \(a100"):
        aot.topology(name)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"v5e:2x2.*libtpu.*pip install 'modjax\[plan\]'"):
        aot.topology("v5e:2x2")


def test_this_machine():
    target = aot.topology("cpu")
    assert (target.devices, target.chip, target.chips) == (jax.devices("cpu"), None, 8)
    made = aot.compiled(jax.jit(jnp.sin).trace(jax.ShapeDtypeStruct((4,), jnp.float32)), target)
    assert "ENTRY" in made.text and made.memory.argument_size_in_bytes == 16 and made.kernels == {}
    assert made.buffers == []  # nothing here is a function of modjax


def test_machines_without_a_compiler_here():
    target = aot.topology("h100:8")
    assert (target.devices, target.chips, target.size) == ([], 8, 8)
    assert target.chip.memory == 60 * 10**9 and target.chip.flops == chips.GPUS["h100"].flops
    assert aot.topology("laptop").size == 1
    with pytest.raises(InputError, match="slices=2: expected a whole number, at least 1 and at most 1"):
        aot.topology("h100:8", slices=2)


def test_matrix_units_at_the_clock_give_the_peak():
    """Units of 128 x 128, in v6e of 256 x 256; a unit does a product and a sum for each of its cells in a cycle."""
    cells = {"v4": 8 * 128**2, "v5e": 4 * 128**2, "v5p": 8 * 128**2, "v6e": 4 * 256**2}
    for name, chip in chips.TPUS.items():
        assert 2 * cells[name] * chip.clock == pytest.approx(chip.flops, rel=3e-3)


def test_a_device_that_is_half_a_chip():
    half = chips.TPUS["v5p"].part(0.5)
    assert 2 * half.memory == chips.TPUS["v5p"].memory and 2 * half.network == chips.TPUS["v5p"].network
    assert half.clock == chips.TPUS["v5p"].clock and chips.TPUS["v4"].part(0.5).network is None


PROGRAM = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding
from modjax.errors import InputError
from modjax.parallel import aot
from modjax.parallel.mesh import make_mesh
from modjax.parallel.program import Program
target = aot.topology("v5e:2x4")
mesh = make_mesh(4, 2, devices=target.devices)
def compiled(width):
    x = jax.ShapeDtypeStruct((width, width), jnp.bfloat16, sharding=NamedSharding(mesh, jax.P("fsdp")))
    return aot.compiled(jax.jit(lambda x: jnp.sum(jnp.sin(x))).trace(x), target)
program = Program(compiled(1024).text)
assert program.cycles(lambda path: path, {}).total() > 0
assert set(program.wire(mesh)) == {"fsdp"}, program.wire(mesh)
try:
    compiled(1 << 18)
except aot.OutOfMemory as error:
    print(error)
try:
    aot.topology("v5e:3x5")
except InputError as error:
    print(error)
print(aot.topology("v4:2x2x1").chips, len(aot.topology("v4:2x2x1").devices))
two = aot.topology("v5e:2x2", slices=2)
mesh = make_mesh(2, 4, devices=two.devices)
print(two.chips, mesh.devices[:, 0, 0].tolist() == [two.devices[0], two.devices[4]])
for axis in mesh.axis_names[:2]:
    x = jax.ShapeDtypeStruct((8, 1024), jnp.float32, sharding=NamedSharding(mesh, jax.P(axis)))
    made = aot.compiled(jax.jit(lambda x: jnp.sum(x, axis=0)).trace(x), two)
    program = Program(made.text)
    print(axis, program.wire(mesh), program.wire(mesh, network=True))
"""


@pytest.mark.slow
def test_two_processes_compile_for_tpus_at_once():
    if importlib.util.find_spec("libtpu") is None:
        pytest.fail("libtpu is missing: pip install 'modjax[plan]' on Python 3.11; `make test-all` does it")
    runs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=600)
        assert run.returncode == 0, err
        memory, unknown, v4, slices, between, within = out.splitlines()
        assert "memory" in memory and unknown.startswith("topology='v5e:3x5': expected chips that libtpu knows")
        assert (v4, slices) == ("4 8", "8 True")
        assert (between, within) == ("expert {} {'expert': 4096}", "fsdp {'fsdp': 6144} {}")
