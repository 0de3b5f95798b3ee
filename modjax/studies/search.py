"""The cheapest plan of a job: of all meshes, numbers of experts at a time and of rows at a time."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Unpack

from modjax import arguments
from modjax.claim import claim
from modjax.errors import InputError
from modjax.files import read_json_object, write_json
from modjax.models.config import ModelConfig
from modjax.parallel import aot
from modjax.parallel.mesh import AXES
from modjax.studies.outcome import argument_bytes, cost, mesh_of, outcome, room
from modjax.studies.plan import asked, with_settings
from modjax.train import estimate
from modjax.train.job import Job
from modjax.train.settings import SettingsFields

COMPILED = 4  # candidates, by default
FOLDER = "candidates"  # in the workdir
MEASURED = ("fits", "chip_hours", "reason")


class Candidate(NamedTuple):
    """A job that fits by formulas."""

    job: Job
    chip_hours: float  # at least
    seconds: float  # of a step, if nothing were done at the same time

    @property
    def name(self) -> str:
        """What tells it apart from the others, as the name of a file."""
        mesh = "x".join(map(str, self.job.mesh.shape.values())) if self.job.mesh else "1"
        settings = self.job.settings
        return f"{mesh}-slots{self.job.slots}-micro{settings.micro}{'-remat' * settings.remat}"

    @property
    def line(self) -> dict[str, Any]:
        """What a table says of it."""
        settings, mesh = self.job.settings, {} if self.job.mesh is None else dict(self.job.mesh.shape)
        own = {"mesh": mesh, "slots": self.job.slots, "micro": settings.micro, "remat": settings.remat}
        return own | {"least_chip_hours": self.chip_hours}


def search(
    model: str,
    experts: int,
    topology: str = "cpu",
    slices: int = 1,
    targets: int | None = None,
    quantize: str | None = None,
    compiled: int = COMPILED,
    workdir: str | pathlib.Path | None = None,
    **settings: Unpack[SettingsFields],
) -> dict[str, Any]:
    """The plan with the fewest chip-hours, of those that differ in mesh, experts at a time, rows at a time and remat.

    Formulas for memory and time leave out what cannot fit and put the others in order; then the best are compiled.
    Settings that are given stay as they are: `slots` and `micro` if they are not 0, and `remat` if it is True.

    Args:
      compiled: how many plans are compiled, at most; where there is no compiler, how many are kept.
      workdir: the folder in which each compiled plan is kept, so that an interrupted search goes on from there.
      Others: as in `modjax.studies.plan`.

    Returns the plan, as `plan` does, with "candidates", all that fit by formulas, the best first: {"mesh", "slots",
    "micro", "remat", "least_chip_hours"}, and of those that were compiled "fits", "reason" and "chip_hours" too. If
    none of them fits, it is the plan of the first.

    Raises InputError as `plan` does, for "cpu", whose speed is not known, and if nothing fits by formulas.
    """
    folder = arguments.optional(arguments.path)("workdir", workdir)
    compiled = arguments.whole("compiled", compiled, least=1, most=100)
    head, job, target = asked(model, experts, topology, slices, None, targets, quantize, settings)
    if target.chip is None:
        raise arguments.refused("topology", topology, "devices whose speed is known: TPUs, GPUs or laptop")
    if folder is not None:
        made = head | {"experts": job.experts, "targets": job.targets, "quantize": quantize}
        made |= {"settings": dataclasses.asdict(job.settings)}
        claim(folder / "search.json", made, [folder / FOLDER])
    found = candidates(job, target, slices)
    if not found:
        raise InputError(f"experts={experts}: on no mesh of {topology} a single row at a time fits, by formulas")
    plans = [_kept(folder, one, target) for one in found[:compiled]]
    best = min(plans, key=lambda plan: plan["chip_hours"] if plan["fits"] else math.inf)
    measured = [{key: plan[key] for key in MEASURED if key in plan} for plan in plans]
    table = [one.line | (measured[i] if i < len(measured) else {}) for i, one in enumerate(found)]
    return head | best | {"candidates": table}


def candidates(job: Job, target: aot.Topology, slices: int = 1) -> list[Candidate]:
    """Jobs on all meshes that fit by formulas, each with as much at a time as fits; the fewest chip-hours first.

    Of several slices, each has whole experts, as the network between them is slow.
    """
    found = []
    for sizes in _meshes(target.size, slices, job.config):
        on = dataclasses.replace(job, mesh=mesh_of(target, **sizes))
        for remat in sorted({job.settings.remat, True}):
            if (one := _filled(with_settings(on, remat=remat), target)) is not None:
                least = estimate.least(one, target.chip, sum(estimate.exchange(one).values()))
                found.append(Candidate(one, cost(one, target, least)["chip_hours"], sum(least.values())))
    return sorted(found, key=lambda one: (one.chip_hours, one.seconds))


def _meshes(number: int, slices: int, config: ModelConfig) -> Iterator[dict[str, int]]:
    """The sizes of all meshes of so many devices whose axes split the base evenly."""
    for tensor in range(1, number + 1):
        for fsdp in range(1, number // tensor + 1):
            inner = slices * tensor * fsdp
            if not (number % inner or config.K % tensor or config.F % tensor or config.D % fsdp):
                yield dict(zip(AXES, (number // (tensor * fsdp), fsdp, tensor), strict=True))


def _filled(job: Job, target: aot.Topology) -> Job | None:
    """The job with as many experts, then as many rows at a time as fit, if they are not given; None if none fit."""
    parts = 1 if job.mesh is None else job.mesh.shape["expert"]
    waves = 1
    while True:
        slots = parts * -(-job.experts // (parts * waves))
        found = job if job.settings.slots else with_settings(job, slots=min(slots, job.experts) if waves > 1 else 0)
        if micro := _rows(found, target):
            return with_settings(found, micro=micro)
        if job.settings.slots or slots == parts:
            return None
        waves *= 2


def _rows(job: Job, target: aot.Topology) -> int:
    """Rows at a time that fit: those that are given, all, or else a power of two; 0 if there are none."""
    free = room(target) - sum(argument_bytes(job).values()) - estimate.gradients(job)
    groups = estimate.groups_of(with_settings(job, micro=0))
    most, fit = groups.E * groups.B, max(0, int(free // estimate.row_bytes(job)))
    if job.settings.micro:
        return job.settings.micro if min(job.settings.micro, most) <= fit else 0
    return most if fit >= most else 2 ** (fit.bit_length() - 1) if fit else 0


def _kept(folder: pathlib.Path | None, one: Candidate, target: aot.Topology) -> dict[str, Any]:
    """The plan of a candidate, from the folder if it is there."""
    if folder is None:
        return outcome(one.job, target)
    file = folder / FOLDER / f"{one.name}.json"
    if not file.exists():
        write_json(file, outcome(one.job, target))
    return read_json_object(file)
