"""Devices that this machine need not have, and programs compiled for TPU pods among them from shapes alone.

libtpu has the compiler and needs no TPU for it. There is no such compiler for GPUs.
"""

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
from modjax.parallel.buffers import OPTIONS, Buffer, buffers
from modjax.parallel.chips import GPUS, LAPTOP, TPUS, Chip
from modjax.parallel.kernels import Kernel, kernels
from modjax.parallel.program import Program

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
SHARE_OF_GPU = 0.75  # of its memory, that JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


class Topology(NamedTuple):
    """Devices to plan for."""

    name: str
    devices: list[jax.Device]  # to compile for; none where this machine has no compiler for them
    chip: Chip | None  # what one device can do; None: not known
    chips: int

    @property
    def size(self) -> int:
        """The number of devices; a TPU v4 chip is two of them."""
        return len(self.devices) or self.chips


class Compiled(NamedTuple):
    """A compiled program."""

    text: str
    memory: Any  # bytes on a device: argument_size_in_bytes, temp_size_in_bytes, ...
    kernels: dict[str, Kernel]  # attention kernels, if it is for a TPU
    buffers: list[Buffer]  # the largest


class OutOfMemory(Exception):
    """The compiler found that a program needs more memory than a device has."""


def topology(name: str, slices: int = 1) -> Topology:
    """The devices with a name:

    * "cpu": those of this machine.
    * TPUs as libtpu names them, such as "v5e:16x16"; `slices` of them, joined by a data center network.
    * GPUs of one machine, such as "h100:8", and "laptop": nothing can be compiled for them here.

    For TPUs, the environment of this process is changed: libtpu then compiles, and JAX finds no TPU of this machine.
    Raises InputError for other names, and for TPUs without libtpu.
    """
    kind, _, shape = arguments.text("topology", name).partition(":")
    tpus = kind in TPUS and re.fullmatch(r"\d+(x\d+)+", shape)
    slices = arguments.whole("slices", slices, least=1, most=MOST if tpus else 1)
    if tpus:
        return _tpus(name, slices)
    if name == "cpu":
        devices = jax.devices("cpu")
        return Topology(name, devices, None, len(devices))
    if name == "laptop":
        return Topology(name, [], LAPTOP, 1)
    if kind in GPUS and re.fullmatch(r"[1-9]\d?", shape):
        own = GPUS[kind]
        return Topology(name, [], own._replace(memory=int(SHARE_OF_GPU * own.memory)), int(shape))
    tpus, gpus = ", ".join(TPUS), ", ".join(GPUS)
    raise arguments.refused("topology", name, f"cpu, laptop, TPUs such as v5e:16x16 ({tpus}), or h100:8 ({gpus})")


def _tpus(name, slices) -> Topology:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(f"topology={name!r}: libtpu, which compiles for TPUs, is missing; pip install 'modjax[plan]'")
    _dump()
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, num_slices=slices)
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"topology={name!r}: expected chips that libtpu knows ({_first_line(error)})") from error
    devices = list(found.devices)
    chips = len({(getattr(device, "slice_index", 0), *device.coords) for device in devices})
    return Topology(name, devices, TPUS[name.partition(":")[0]].part(chips / len(devices)), chips)


def compiled(program: jax.stages.Traced, target: Topology) -> Compiled:
    """The program for the devices that its shapes lie on. Raises OutOfMemory if these have too little memory."""
    tpus = target.chip is not None
    folder = _emptied(_dump()) if tpus else None
    lowered = program.lower(lowering_platforms=("tpu",) if tpus else None)
    with tempfile.TemporaryDirectory(prefix="modjax-plan-") as lists:
        try:
            with _uncached():
                made = lowered.compile(compiler_options=OPTIONS | {"xla_dump_to": lists})
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise OutOfMemory(_first_line(error)) from error
            raise
        text = made.as_text()
        largest = buffers(pathlib.Path(lists), Program(text))
    return Compiled(text, made.memory_analysis(), kernels(folder) if tpus else {}, largest)


def _emptied(folder) -> pathlib.Path:
    for old in folder.iterdir():
        old.unlink()
    return folder


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
    """Turns off the cache of compiled programs: for a program from there, nothing is written to folders."""
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
