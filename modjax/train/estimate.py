"""What a step of a training job needs, by formulas alone: memory, exchange between devices, and at least which time.

They serve where nothing can be compiled, and to choose what is worth compiling.
"""

import dataclasses
import functools

import numpy as np

from modjax.parallel.chips import Chip
from modjax.train import memory
from modjax.train.flops import flops
from modjax.train.job import Job
from modjax.train.micro import Groups


def gradients(job: Job) -> int:
    """Bytes of the sum of the adapters' gradients on a device."""
    return memory.bytes_on_device(job.arguments.state.trained)


def temporaries(job: Job) -> int:
    """Bytes that a step needs on a device besides its arguments: gradients, and what its rows at a time need."""
    groups = groups_of(job)
    return gradients(job) + groups.experts * groups.rows * row_bytes(job)


def row_bytes(job: Job) -> int:
    """Bytes that a row needs on a device while its gradient is made.

    It holds what training reckons with when it chooses its rows at a time, see `memory.held_bytes`, and needs about
    twice what the backward pass of one layer reads. `tensor`, along which a part is split, is left out.
    """
    kept, recomputed = (_held(_of_one_expert(job, remat)) for remat in (False, True))
    return (recomputed if job.settings.remat else kept) + 2 * (kept - recomputed) // job.config.L


def exchange(job: Job) -> dict[str, int]:
    """{mesh axis: bytes that a device sends along it in a step}, by ring algorithms.

    Along `fsdp`, weights are gathered in each pass of each group of rows, and gradients of adapters are summed; along
    `tensor`, each block sums its two outputs forward, their gradients backward, and the former again if recomputed.
    """
    if job.mesh is None:
        return {}
    groups, sizes, weights = groups_of(job), job.mesh.shape, memory.bytes_on_device(job.arguments.decoder)
    others = {axis: (size - 1) / size for axis, size in sizes.items()}
    tokens = groups.E * groups.B * job.settings.length
    width = job.config.D * np.dtype(job.dtype).itemsize
    sums = (6 if job.settings.remat else 4) * job.config.L
    sent = {
        "fsdp": others["fsdp"] * (2 * groups.number * weights * sizes["fsdp"] + 2 * gradients(job)),
        "tensor": others["tensor"] * 2 * sums * tokens * width,
    }
    return {axis: int(size) for axis, size in sent.items() if size}


def least(job: Job, chip: Chip, sent: int, network: int = 0) -> dict[str, float]:
    """The roofline of a step: seconds that its products, its reads of weights and state, and its exchange need.

    chip: one device. sent: bytes that it sends in a step within its slice; network: to other slices.
    """
    size = 1 if job.mesh is None else job.mesh.size
    weights = memory.bytes_on_device(job.arguments.decoder) * (1 if job.mesh is None else job.mesh.shape["fsdp"])
    state = memory.bytes_on_device(job.arguments.state)
    moved = (3 if job.settings.remat else 2) * groups_of(job).number * weights + 2 * state
    filled = job.members * job.rows / (job.slots * job.settings.batch)  # idle members and rows take as long as others
    found = {
        "compute": operations(job, job.settings.remat) * filled / size / chip.flops,
        "memory": moved / chip.bandwidth,
        "wire": sent / chip.wire,
    }
    return found | ({"network": network / chip.network} if chip.network and network else {})


def operations(job: Job, remat: bool = False) -> float:
    """Operations of a step on all devices, if each row is one path; without those of idle members and rows."""
    rows, length = job.slots * job.settings.batch, job.settings.length
    return flops(job.config, rows * length, rows * job.targets, rows * length * (length + 1) // 2, remat)


def groups_of(job: Job) -> Groups:
    """How a step cuts its rows."""
    return Groups.of(job.members, job.rows, job.settings.micro, job.mesh)


def _of_one_expert(job, remat):
    """The job of one expert on one device: its rows need the same memory."""
    settings = dataclasses.replace(job.settings, slots=0, micro=1, remat=remat)
    return dataclasses.replace(job, settings=settings, experts=1, mesh=None)


@functools.lru_cache(maxsize=64)
def _held(job) -> int:
    return job.bytes_per_row()
