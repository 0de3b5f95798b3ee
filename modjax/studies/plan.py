"""Plans: what training a library needs on devices that this machine need not have, before any of them is paid for.

The training step is compiled from sizes alone, without weights and data, and its text is read. Times are estimates.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import jax.numpy as jnp

from modjax import arguments
from modjax.models import local, quant
from modjax.parallel import aot
from modjax.parallel.mesh import AXES
from modjax.studies.outcome import argument_bytes, mesh_of, outcome, room
from modjax.train.estimate import groups_of
from modjax.train.examples import check_settings
from modjax.train.job import Job
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
      topology: "cpu" for this machine; TPUs such as "v5e:16x16", which need the extra `plan`, but no TPU; or GPUs of
        one machine such as "h100:8", or "laptop", for which formulas take the place of a compiler.
      slices: how many such TPU slices there are; they lie along `expert` as far as its size allows.
      mesh: sizes of "expert", "fsdp" and "tensor", as in `make_mesh`.
      targets: target tokens of a row, M; None: a quarter of its length. Data decide it in a real run.
      quantize: as in `modjax.load`.
      settings: the fields of `modjax.train.settings.Settings`.

    Returns plain data: "source", compiler or formulas; "fits", and "experts_that_fit" at a time, about; bytes of
    "memory" on a device, and its largest "buffers"; bytes of "wire", {mesh axes: sent by a device in a step}, and
    likewise what goes between slices over their "network"; seconds of a "step", by cycles and at least by what a device
    can do; and, where the device is known, "tokens_per_second", "share_of_peak", and "hours" and "chip_hours" of the
    whole job in its "waves". For a job that does not fit, "alternatives" has the largest micro, or else fewer experts
    at a time or the first mesh, of those tried, that does: where one row at a time is too much, fewer rows are too.

    Raises InputError for arguments that do not fit, and if the extra is missing.
    """
    head, job, target = asked(model, experts, topology, slices, mesh, targets, quantize, settings)
    found = outcome(job, target)
    if found["fits"]:
        return head | found
    held = dataclasses.replace(job.settings, micro=found["micro"], remat=found["remat"])
    tried = itertools.islice(_smaller(dataclasses.replace(job, settings=held), job.settings, target), CANDIDATES)
    fitting = (one for one in (outcome(other, target) for other in tried) if one["fits"])
    return head | found | {"alternatives": list(itertools.islice(fitting, 1))}


def asked(
    model: str,
    experts: int,
    topology: str,
    slices: int,
    mesh: Mapping[str, int] | None,
    targets: int | None,
    quantize: str | None,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Any], Job, aot.Topology]:
    """(what a plan is of, the job, the devices) for the arguments of `plan`, once they are checked."""
    made, name = arguments.made(Settings, settings), os.fspath(arguments.path("model", model))
    config = local.config(name)
    check_settings(config, name, made)
    experts = arguments.whole("experts", experts, least=1, most=MOST)
    targets = arguments.optional(arguments.whole)("targets", targets, least=1, most=made.length)
    quant.check(quantize)
    axes = arguments.mapping("mesh", {} if mesh is None else mesh, f"sizes of {', '.join(AXES)}")
    target = aot.topology(topology, slices)
    on = mesh_of(target, **arguments.known(axes, AXES, "mesh"))
    dtype = jnp.float32 if topology in ("cpu", "laptop") else jnp.bfloat16
    job = Job(config, made, experts, targets or -(-made.length // 4), on, dtype, quantize)
    head = {"model": name, "topology": topology, "slices": int(slices), "chips": target.chips}
    return head, job, target


def with_settings(job: Job, **settings: Any) -> Job:
    """The job with other settings."""
    return dataclasses.replace(job, settings=dataclasses.replace(job.settings, **settings))


def _smaller(job: Job, given: Settings, target: aot.Topology) -> Iterator[Job]:
    """Jobs of the same training that need less memory: fewer rows at a time, then fewer experts, then other meshes.

    given: the settings of other meshes, for which `job` may have chosen the rows at a time.
    """
    groups = groups_of(job)
    rows = groups.experts * groups.rows
    if _arguments_fit(job, target):
        while rows > 1:
            rows //= 2
            yield with_settings(job, micro=rows)
        if not job.settings.remat:
            yield with_settings(job, micro=1, remat=True)
    else:
        yield from itertools.islice(_fewer_experts(job, target), 1)
    if job.mesh is not None:
        yield from _meshes(dataclasses.replace(job, settings=given), target)


def _fewer_experts(job: Job, target: aot.Topology) -> Iterator[Job]:
    """The job in more waves, each of which fills the mesh and has arguments that fit."""
    parts = 1 if job.mesh is None else job.mesh.shape["expert"]
    slots = job.slots // 2
    while slots >= parts:
        found = with_settings(job, slots=slots - slots % parts)
        if _arguments_fit(found, target):
            yield found
        slots //= 2


def _meshes(job: Job, target: aot.Topology) -> Iterator[Job]:
    """The job on meshes with more devices along fsdp, then along tensor, if they divide its rows and it fits there."""
    sizes = dict(job.mesh.shape)
    for axis in AXES[1:]:
        for factor in (2**power for power in range(1, sizes["expert"].bit_length())):
            if sizes["expert"] % factor:
                continue
            other = sizes | {"expert": sizes["expert"] // factor, axis: sizes[axis] * factor}
            found = dataclasses.replace(job, mesh=mesh_of(target, **other))
            if not found.idle.rows and _arguments_fit(found, target):
                yield found


def _arguments_fit(job, target) -> bool:
    return sum(argument_bytes(job).values()) <= room(target)
