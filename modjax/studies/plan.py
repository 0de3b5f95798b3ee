"""Plans: what training a library needs on devices that this machine need not have, before any of them is paid for.

The training step is compiled from sizes alone, without weights and data, and its text is read. Times are estimates.
"""

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import jax.numpy as jnp

from modjax import arguments
from modjax.models import local, quant
from modjax.parallel import aot
from modjax.parallel.mesh import AXES, make_mesh
from modjax.parallel.program import Program
from modjax.train import memory
from modjax.train.examples import check_settings
from modjax.train.flops import flops
from modjax.train.job import Job
from modjax.train.micro import Groups
from modjax.train.settings import Settings, SettingsFields

CANDIDATES = 6  # other sizes that are compiled for a job that does not fit, at most
MOST = 2**20  # experts


def plan(
    model: str,
    experts: int,
    topology: str = "cpu",
    slices: int = 1,
    mesh: Mapping[str, int] | None = None,
    targets: int | None = None,
    quantize: str | None = None,
    **settings: Unpack[SettingsFields],
) -> dict[str, Any]:
    """What `modjax.train_library` of E experts needs on some devices: memory, exchange between them, and time.

    Args:
      model: a directory with config.json, a config.json, or one of `modjax.models.local.KNOWN`; no weights are read.
      experts: E.
      topology: "cpu" for this machine, or TPUs such as "v5e:16x16", which need the extra `plan`, but no TPU.
      slices: how many such TPU slices there are; they lie along `expert` as far as its size allows.
      mesh: sizes of "expert", "fsdp" and "tensor", as in `make_mesh`.
      targets: target tokens of a row, M; None: a quarter of its length. Data decide it in a real run.
      quantize: as in `modjax.load`.
      settings: the fields of `modjax.train.settings.Settings`.

    Returns plain data: "fits"; bytes of "memory" on a device; bytes of "wire", {mesh axes: sent by a device in a step};
    seconds of a "step", by cycles and at least by what a device can do; and, where the device is known,
    "tokens_per_second", "share_of_peak", "hours" and "chip_hours". For a job that does not fit, "alternatives" has the
    largest micro or else the first mesh, of those tried, that does: where one row at a time is too much, fewer rows
    are too.

    Raises InputError for arguments that do not fit, and if the extra is missing.
    """
    made, name = arguments.made(Settings, settings), os.fspath(arguments.path("model", model))
    config = local.config(name)
    check_settings(config, name, made)
    arguments.whole("experts", experts, least=1, most=MOST)
    targets = arguments.optional(arguments.whole)("targets", targets, least=1, most=made.length)
    quant.check(quantize)
    sizes = arguments.mapping("mesh", {} if mesh is None else mesh, f"sizes of {', '.join(AXES)}")
    target = aot.topology(topology, slices)
    on = make_mesh(**arguments.known(sizes, AXES, "mesh"), devices=target.devices) if len(target.devices) > 1 else None
    dtype = jnp.float32 if target.chip is None else jnp.bfloat16
    job = Job(config, made, int(experts), targets or -(-made.length // 4), on, dtype, quantize)
    return {"model": name, "topology": topology, "slices": int(slices), "chips": target.chips} | _planned(job, target)


def _planned(job: Job, target: aot.Topology) -> dict[str, Any]:
    found = outcome(job, target)
    if found["fits"]:
        return found
    held = dataclasses.replace(job.settings, micro=found["micro"], remat=found["remat"])
    tried = itertools.islice(_smaller(dataclasses.replace(job, settings=held), job.settings, target), CANDIDATES)
    fitting = (one for one in (outcome(other, target) for other in tried) if one["fits"])
    return found | {"alternatives": list(itertools.islice(fitting, 1))}


def outcome(job: Job, target: aot.Topology) -> dict[str, Any]:
    """The plan of one job as it is; it is compiled unless its arguments alone do not fit."""
    room, kinds = _room(target), _kinds(job)
    held = {"memory": {"device": room, "arguments": kinds}}
    if sum(kinds.values()) > room:
        reason = "the arguments of a step alone need more than a device has"
        return _sizes(job) | held | {"fits": False, "reason": reason}
    job = job.settled(None if target.chip is None else room - kinds["base"])
    found, start = _sizes(job) | held, time.monotonic()
    try:
        compiled = aot.compiled(job.traced(), target)
    except aot.OutOfMemory as error:
        return found | {"fits": False, "reason": str(error)}
    seconds, used = time.monotonic() - start, _used(compiled.memory, kinds)
    fits = used["total"] <= room
    return found | {
        "memory": {"device": room, **used},
        "fits": fits,
        "reason": None if fits else "arguments and temporaries need more than a device has",
        "compilation_seconds": seconds,
        **_exchange_and_time(job, target, compiled),
    }


def _sizes(job) -> dict[str, Any]:
    """What the plan is of."""
    mesh = {} if job.mesh is None else dict(job.mesh.shape)
    given = ("batch", "length", "micro", "remat", "steps", "rank")
    return {
        "mesh": mesh,
        "experts": job.experts,
        "idle": job.idle._asdict(),
        "targets": job.targets,
        "dtype": jnp.dtype(job.dtype).name,
        "quantize": job.quantize,
        **{name: getattr(job.settings, name) for name in given},
    }


def _kinds(job) -> dict[str, int]:
    """Bytes of a step's arguments on a device."""
    given = job.arguments
    state = given.state
    kinds = {
        "base": given.decoder,
        "adapters": (state.trained, state.good, state.best, given.frozen),
        "optimizer": state.opt_state,
        "batch": (given.batch, given.keys_E),
    }
    return {kind: memory.bytes_on_device(tree) for kind, tree in kinds.items()}


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


def _exchange_and_time(job, target, compiled) -> dict[str, Any]:
    program, settings = Program(compiled.text), job.settings
    wire = {} if job.mesh is None else program.wire(job.mesh)
    notes = []
    if program.unknown_loops:
        notes.append(f"{program.unknown_loops} loops, whose number of rounds is not known, count as one round each")
    if any(job.idle):
        notes.append(f"{job.idle.members} members, and {job.idle.rows} rows of each step, are idle, to fill the mesh")
    if job.experts > 1 and any("expert" in axes for axes in wire):
        notes.append("something is sent along expert, where the training of a library needs to send nothing")
    found = {"wire": wire, "notes": notes}
    if target.chip is None:
        return found
    from modjax.ops.attention_tpu import BLOCK  # half a second of imports

    kernels = {name: one.of_path(-(-settings.length // BLOCK)) for name, one in compiled.kernels.items()}
    if program.kernels - set(kernels):
        notes.append("the cycles of attention are not known and count nothing")
    cycles = program.cycles(lambda path: path, kernels).total()
    step = {"cycles": cycles, "by_cycles": cycles / target.chip.clock, **_least(job, target, sum(wire.values()))}
    seconds = max(step[key] for key in ("by_cycles", "compute", "memory", "wire"))
    hours = settings.steps * seconds / 3600
    return found | {
        "step": step | {"seconds": seconds},
        "tokens_per_second": job.experts * settings.batch * settings.length / seconds,
        "share_of_peak": _operations(job) / len(target.devices) / target.chip.flops / seconds,
        "hours": hours,
        "chip_hours": hours * target.chips,
    }


def _least(job, target, sent) -> dict[str, float]:
    """The roofline of a step: seconds that its products, its reads of weights and state, and its exchange need."""
    chip, given, settings = target.chip, job.arguments, job.settings
    groups = Groups.of(job.members, job.rows, settings.micro, job.mesh).number
    weights = memory.bytes_on_device(given.decoder) * (1 if job.mesh is None else job.mesh.shape["fsdp"])
    state = memory.bytes_on_device(given.state)
    moved = (3 if settings.remat else 2) * groups * weights + 2 * state
    return {
        "compute": _operations(job, settings.remat) / len(target.devices) / chip.flops,
        "memory": moved / chip.bandwidth,
        "wire": sent / chip.wire,
    }


def _operations(job, remat=False) -> float:
    """Operations of a step on all devices, if each row is one path."""
    rows, length = job.experts * job.settings.batch, job.settings.length
    return flops(job.config, rows * length, rows * job.targets, rows * length * (length + 1) // 2, remat)


def _smaller(job: Job, given: Settings, target: aot.Topology) -> Iterator[Job]:
    """Jobs of the same training that need less memory: fewer rows at a time, then the base split over more devices.

    given: the settings of other meshes, for which `job` may have chosen the rows at a time.
    """
    groups = Groups.of(job.members, job.rows, job.settings.micro, job.mesh)
    rows = groups.experts * groups.rows
    if sum(_kinds(job).values()) <= _room(target):
        while rows > 1:
            rows //= 2
            yield _with(job, micro=rows)
        if not job.settings.remat:
            yield _with(job, micro=1, remat=True)
    if job.mesh is not None:
        yield from _meshes(dataclasses.replace(job, settings=given), target)


def _meshes(job: Job, target: aot.Topology) -> Iterator[Job]:
    """The job on meshes with more devices along fsdp, then along tensor, if they divide its rows and it fits there."""
    sizes = dict(job.mesh.shape)
    for axis in AXES[1:]:
        for factor in (2**power for power in range(1, sizes["expert"].bit_length())):
            if sizes["expert"] % factor:
                continue
            other = sizes | {"expert": sizes["expert"] // factor, axis: sizes[axis] * factor}
            found = dataclasses.replace(job, mesh=make_mesh(**other, devices=target.devices))
            if not found.idle.rows and sum(_kinds(found).values()) <= _room(target):
                yield found


def _with(job, **settings) -> Job:
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, **settings))


def _room(target) -> int:
    """Bytes that a device has for a job."""
    return memory.free_bytes(target.devices[0]) if target.chip is None else target.chip.memory
