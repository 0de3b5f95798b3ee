"""Programs for TPU pods, compiled on any machine from shapes alone: libtpu has the compiler and needs no TPU for it."""

import atexit
import contextlib
import functools
import importlib.util
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.experimental.compilation_cache import compilation_cache

from modjax import arguments
from modjax.errors import InputError
from modjax.parallel.kernels import Kernel, kernels

# libtpu asks no metadata server and locks no file, so that several processes can compile at once.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# It writes the final code of kernels, and nothing else, to a folder.
FLAGS = "--xla_jf_dump_to={} --xla_jf_dump_llo_text --xla_jf_dump_llo_pass_label_regex=final_bundles"


MOST = 64  # slices


class Chip(NamedTuple):
    """What a chip can do at most."""

    memory: int  # bytes
    flops: float  # bfloat16 operations per second
    bandwidth: float  # bytes per second between its memory and its cores
    wire: float  # bytes per second that it sends, all links to other chips together
    clock: float  # cycles per second


# Source: the page of each version at cloud.google.com/tpu/docs; clocks: the peak over what matrix units do in a cycle.
CHIPS = {
    "v4": Chip(32 << 30, 275e12, 1228e9, 300e9, 1.05e9),
    "v5e": Chip(16 << 30, 197e12, 819e9, 200e9, 1.5e9),
    "v5p": Chip(95 << 30, 459e12, 2765e9, 600e9, 1.75e9),
    "v6e": Chip(32 << 30, 918e12, 1640e9, 448e9, 1.75e9),
}


class Topology(NamedTuple):
    """Devices to compile for."""

    name: str
    devices: list[jax.Device]
    chip: Chip | None  # what one device can do; None: not known
    chips: int


class Compiled(NamedTuple):
    """A compiled program."""

    text: str
    memory: Any  # bytes on a device: argument_size_in_bytes, temp_size_in_bytes, ...
    kernels: dict[str, Kernel]  # attention kernels, if it is for a TPU


class OutOfMemory(Exception):
    """The compiler found that a program needs more memory than a device has."""


def topology(name: str, slices: int = 1) -> Topology:
    """The devices of "cpu", which are those of this machine, or of TPUs such as "v5e:16x16", as libtpu names them.

    slices: how many of these TPU slices a data center network joins.

    For TPUs, the environment of this process is changed: libtpu then compiles, and JAX finds no TPU of this machine.
    Raises InputError for other names, and without libtpu.
    """
    arguments.text("topology", name)
    arguments.whole("slices", slices, least=1, most=1 if name == "cpu" else MOST)
    if name == "cpu":
        devices = jax.devices("cpu")
        return Topology(name, devices, None, len(devices))
    kind, _, shape = name.partition(":")
    if kind not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", shape):
        raise arguments.refused("topology", name, f"cpu, or chips such as v5e:16x16, of {', '.join(CHIPS)}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f"topology={name!r}: libtpu, which compiles for TPUs, is missing; pip install 'modjax[plan]'")
    _dump()
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, num_slices=int(slices))
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"topology={name!r}: expected chips that libtpu knows ({_first_line(error)})") from error
    devices = list(found.devices)
    chips = len({(getattr(device, "slice_index", 0), *device.coords) for device in devices})
    share = chips / len(devices)  # a v4 has two devices
    own = CHIPS[kind]
    device = Chip(int(own.memory * share), own.flops * share, own.bandwidth * share, own.wire * share, own.clock)
    return Topology(name, devices, device, chips)


def compiled(program: jax.stages.Traced, target: Topology) -> Compiled:
    """The program for the devices that its shapes lie on. Raises OutOfMemory if these have too little memory."""
    if target.chip is None:
        made = program.lower().compile()
        return Compiled(made.as_text(), made.memory_analysis(), {})
    folder = _dump()
    for old in folder.iterdir():
        old.unlink()
    try:
        with _uncached():
            made = program.lower(lowering_platforms=("tpu",)).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemory(_first_line(error)) from error
        raise
    return Compiled(made.as_text(), made.memory_analysis(), kernels(folder))


@functools.cache
def _dump() -> pathlib.Path:
    """The folder to which libtpu writes the code of kernels; it is told once, before it is loaded."""
    folder = tempfile.TemporaryDirectory(prefix="modjax-plan-")
    atexit.register(folder.cleanup)
    flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    os.environ |= ENVIRONMENT | {"LIBTPU_INIT_ARGS": f"{flags} {FLAGS.format(folder.name)}".strip()}
    jax.config.update("jax_platforms", "cpu")
    return pathlib.Path(folder.name)


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Turns off the cache of compiled programs: for a program from there, libtpu writes no code of kernels."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _first_line(error):
    return str(error).partition("\n")[0]
