"""What one training job needs on some devices: by compiling its step, or by formulas where there is no compiler."""

import math
import time
from typing import Any

import jax
import jax.numpy as jnp

from modjax.parallel import aot
from modjax.parallel.mesh import make_mesh, shapes_mesh
from modjax.parallel.program import Program
from modjax.train import estimate, memory
from modjax.train.job import Job

SIZES = ("batch", "length", "micro", "remat", "steps", "rank")
ROOFLINE = ("compute", "memory", "wire", "network")


def outcome(job: Job, target: aot.Topology) -> dict[str, Any]:
    """The plan of one job as it is; it is compiled unless its arguments alone do not fit."""
    kinds, free = argument_bytes(job), room(target)
    if sum(kinds.values()) > free:
        reason = "the arguments of a step alone need more than a device has"
        return sizes(job) | {"memory": {"device": free, "arguments": kinds}, "fits": False, "reason": reason}
    # As training does it: what is free once the base is loaded; formulas leave room for all that stays.
    held = kinds["base"] if target.devices else sum(kinds.values())
    job = job.settled(None if target.chip is None else free - held)
    return sizes(job) | (_compiled if target.devices else _by_formulas)(job, target, kinds, free)


def sizes(job: Job) -> dict[str, Any]:
    """What the plan is of."""
    return {
        "mesh": {} if job.mesh is None else dict(job.mesh.shape),
        "experts": job.experts,
        "slots": job.slots,
        "waves": job.waves,
        "idle": job.idle._asdict(),
        "targets": job.targets,
        "dtype": jnp.dtype(job.dtype).name,
        "quantize": job.quantize,
        **{name: getattr(job.settings, name) for name in SIZES},
    }


def mesh_of(target: aot.Topology, **axes: int) -> jax.sharding.Mesh | jax.sharding.AbstractMesh | None:
    """The mesh of these sizes over the devices; None for a single device."""
    if target.size == 1:
        return None
    return make_mesh(**axes, devices=target.devices) if target.devices else shapes_mesh(target.size, **axes)


def argument_bytes(job: Job) -> dict[str, int]:
    """Bytes of a step's arguments on a device."""
    given = job.arguments
    state = given.state
    kinds = {
        "base": given.decoder,
        "adapters": (state.trained, state.good, state.best, given.frozen),
        "optimizer": state.opt_state,
        "batch": (given.batch, given.keys_E, given.lengths),
    }
    return {kind: memory.bytes_on_device(tree) for kind, tree in kinds.items()}


def room(target: aot.Topology) -> int:
    """Bytes that a device has for a job."""
    return memory.free_bytes(target.devices[0]) if target.chip is None else target.chip.memory


def cost(job: Job, target: aot.Topology, step: dict[str, float]) -> dict[str, Any]:
    """Speed and cost of the whole job, from what a step needs in seconds; each wave has a step more, which measures."""
    seconds = max(step.get(key, 0.0) for key in ("by_cycles", *ROOFLINE))
    hours = job.waves * (job.settings.steps + 1) * seconds / 3600
    return {
        "step": step | {"seconds": seconds},
        "tokens_per_second": job.slots * job.settings.batch * job.settings.length / seconds,
        "hours": hours,
        "chip_hours": hours * target.chips,
    }


def _by_formulas(job, target, kinds, free) -> dict[str, Any]:
    used = {"arguments": kinds, "temporaries": estimate.temporaries(job)}
    used["total"] = sum(kinds.values()) + used["temporaries"]
    wire = estimate.exchange(job)
    return {
        "source": "formulas",
        "memory": {"device": free, **used},
        **_fit(job, used["total"], free),
        "wire": wire,
        "notes": _notes(job) + ["nothing was compiled: memory is a model, and times are the least there can be"],
        **cost(job, target, estimate.least(job, target.chip, sum(wire.values()))),
    }


def _compiled(job, target, kinds, free) -> dict[str, Any]:
    start = time.monotonic()
    try:
        compiled = aot.compiled(job.traced(), target)
    except aot.OutOfMemory as error:
        return {"memory": {"device": free, "arguments": kinds}, "fits": False, "reason": str(error)}
    used = _used(compiled.memory, kinds)
    return {
        "source": "compiler",
        "memory": {"device": free, **used},
        "buffers": [one._asdict() for one in compiled.buffers],
        **_fit(job, used["total"], free),
        "compilation_seconds": time.monotonic() - start,
        **_exchange_and_time(job, target, compiled),
    }


def _fit(job, total, free) -> dict[str, Any]:
    """Whether it fits, and about how many experts at a time would."""
    given = job.arguments
    own = memory.bytes_on_device((given.state, given.state.trained, given.batch))  # with gradients
    parts = 1 if job.mesh is None or job.members == 1 else job.mesh.shape["expert"]
    each = own / (job.members / parts)  # bytes of an expert where it lies
    return {
        "fits": total <= free,
        "reason": None if total <= free else "arguments and temporaries need more than a device has",
        "experts_that_fit": parts * max(0, math.floor((free - total + own) / each)),
    }


def _used(found, kinds) -> dict[str, Any]:
    """Bytes that the compiled step uses on a device; padding is what the layout of arguments adds."""
    padding = max(0, found.argument_size_in_bytes - sum(kinds.values()))
    results = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    own = {"temporaries": found.temp_size_in_bytes, "results": results, "code": found.generated_code_size_in_bytes}
    return {
        "arguments": kinds | {"padding": padding},
        **own,
        "total": sum(kinds.values()) + padding + sum(own.values()),
    }


def _notes(job) -> list[str]:
    if not any(job.idle):
        return []
    return [f"{job.idle.members} members, and {job.idle.rows} rows of each step, are idle, to fill the mesh"]


def _exchange_and_time(job, target, compiled) -> dict[str, Any]:
    program, length = Program(compiled.text), job.settings.length
    wire = {} if job.mesh is None else program.wire(job.mesh)
    network = {} if job.mesh is None else program.wire(job.mesh, network=True)
    notes = []
    if program.unknown_loops:
        notes.append(f"{program.unknown_loops} loops, whose number of rounds is not known, count as one round each")
    notes += _notes(job)
    if job.slots > 1 and any("expert" in axes for axes in wire | network):
        notes.append("something is sent along expert, where the training of a library needs to send nothing")
    found = {"wire": wire, "network": network, "notes": notes}
    if target.chip is None:
        return found
    if network and not target.chip.network:
        notes.append("the speed of the network between slices is not known, and counts nothing")
    from modjax.ops.attention_tpu import BLOCK  # half a second of imports

    kernels = {name: one.of_path(-(-length // BLOCK)) for name, one in compiled.kernels.items()}
    if program.kernels - set(kernels):
        notes.append("the cycles of attention are not known and count nothing")
    cycles = program.cycles(lambda path: path, kernels).total()
    least = estimate.least(job, target.chip, sum(wire.values()), sum(network.values()))
    found |= cost(job, target, {"cycles": cycles, "by_cycles": cycles / target.chip.clock, **least})
    peak = target.size * target.chip.flops
    return found | {"share_of_peak": estimate.operations(job) / peak / found["step"]["seconds"]}
