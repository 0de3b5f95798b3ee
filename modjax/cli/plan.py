"""`modjax plan`: what a training job needs on devices that this machine need not have; nothing is loaded or trained."""

import itertools
import pathlib
from typing import Any

from absl.flags import DEFINE_bool, DEFINE_integer, DEFINE_string, FlagValues
from ml_collections import ConfigDict

from modjax.cli import build, session
from modjax.errors import InputError
from modjax.files import write_json
from modjax.parallel.distributed import from_first
from modjax.studies.plan import plan
from modjax.studies.search import search
from modjax.train.groups import groups_of

NEEDS = ("config",)  # flags that must be given
EXAMPLE = "modjax plan --search --config=configs/private.py:phi2 --topology=v5e:16x16 --experts=256"
SHOWN = 2**30 / 200  # bytes that are not 0.00 GiB
KINDS = ("base", "adapters", "optimizer", "batch", "padding")
LINES = 12  # candidates of a search that are printed


def define_flags(values: FlagValues) -> None:
    names = "TPUs such as v5e:16x16, v5p:4x4x4; GPUs such as h100:8; laptop; cpu, this machine; else the config's"
    DEFINE_string("topology", None, names, values)
    DEFINE_integer("slices", None, "number of such TPU slices, joined by a data center network", flag_values=values)
    experts = "number of experts; by default the config's, or those of its tasks and groups"
    DEFINE_integer("experts", None, experts, flag_values=values)
    targets = "target tokens of a row; by default the config's, or a quarter of train.length"
    DEFINE_integer("targets", None, targets, flag_values=values)
    searched = "find the mesh, the experts at a time and the rows at a time that need the fewest chip-hours"
    DEFINE_bool("search", False, searched, flag_values=values)


def run(config, workdir, flags) -> None:
    """Prints memory, exchange and time of a training step, and the cost of the job; writes WORKDIR/plan.json, if given.

    Compiling takes minutes and a few GB of memory. For TPUs install modjax[plan]; no TPU is needed. With --search,
    WORKDIR also keeps each plan that was compiled; the same command then goes on from there.
    """
    if config.recipe != "lora":
        raise InputError(f"config.recipe={config.recipe!r}: expected 'lora', the only recipe that can be planned")
    folder = session.enter(workdir, config) if workdir else None
    found = _found(config, folder, flags)
    if folder is not None:
        from_first(lambda: write_json(folder / "plan.json", found))
    print("\n".join(_lines(found)))


def _found(config: ConfigDict, folder: pathlib.Path | None, flags) -> dict[str, Any]:
    """The plan for a config, and for what flags say, or else its own section `plan`."""
    given = {name: config.plan[name] for name in config.get("plan", {})}
    given |= {
        name: flags[name].value
        for name in ("topology", "slices", "experts", "targets")
        if flags[name].value is not None
    }
    if "topology" not in given:
        raise InputError("--topology is missing; expected devices, such as v5e:16x16")
    experts = given.pop("experts", None)
    if experts is None:
        experts = len(groups_of(config.groups, build.tasks(config).training))
    given |= {"quantize": config.quantize, **config.train.to_dict()}
    if flags.search:
        return search(config.model, experts, workdir=folder, **given)
    return plan(config.model, experts, mesh=config.mesh.to_dict(), **given)


def _lines(found) -> list[str]:
    mesh = " ".join(f"{axis}={size}" for axis, size in found["mesh"].items())
    rows = f"{found['batch']} rows x {found['length']} tokens per expert"
    at_a_time = f"{found['micro'] or 'all'} rows at a time per device" + (", recomputed" if found["remat"] else "")
    lines = [
        f"{found['model']}, {found['experts']} experts, {_devices(found)}{mesh and f', mesh {mesh}'}",
        _line("step", f"{rows}, {found['targets']} targets a row; {at_a_time}"),
        *_memory(found),
        *_rates(found),
        *(_line("note", note) for note in found.get("notes", ())),
        *_candidates(found.get("candidates", ())),
    ]
    for other in found.get("alternatives", ()):
        lines += ["", "this would fit:", *_lines(found | {"alternatives": ()} | other)]
    return lines


def _devices(found) -> str:
    return found["topology"] if found["slices"] == 1 else f"{found['slices']} x {found['topology']}"


def _memory(found) -> list[str]:
    memory = found["memory"]
    parts = {kind: memory["arguments"].get(kind) for kind in KINDS} | {
        kind: memory.get(kind) for kind in ("temporaries", "results", "code")
    }
    of = _gib(memory["device"])
    used = f", {_gib(memory['total'])} of {of} GiB a device" if "total" in memory else f" in {of} GiB a device"
    reason = "" if found["fits"] else f": {found['reason']}"
    return [
        _line("fits", f"{'yes' if found['fits'] else 'no'}{used}{reason}"),
        *(_line(f"  {kind}", f"{_gib(size)} GiB") for kind, size in parts.items() if size and size >= SHOWN),
        *_buffers(found.get("buffers", ())),
    ]


def _buffers(found) -> list[str]:
    titles = itertools.chain(["  largest"], itertools.repeat(""))
    return [
        _line(title, f"{one['number']} x {_gib(one['size'])} GiB {one['shape']}, {one['origin']}")
        for title, one in zip(titles, found, strict=False)
        if one["size"] >= SHOWN
    ]


def _rates(found: dict[str, Any]) -> list[str]:
    if "wire" not in found:
        return []
    sent = [f"{axes} {size / 1e9:.3g} GB" for axes, size in found["wire"].items()]
    sent += [f"{axes} {size / 1e9:.3g} GB to other slices" for axes, size in found.get("network", {}).items()]
    lines = [_line("wire", f"sent by a device in a step: {', '.join(sent) or 'nothing'}")]
    if "step" not in found:
        return lines
    step = found["step"]
    least = ", ".join(f"{kind} {step[kind]:.3g}" for kind in ("compute", "memory", "wire", "network") if kind in step)
    by_cycles = f"by cycles {step['by_cycles']:.3g}; " if "by_cycles" in step else ""
    share = f", {found['share_of_peak']:.0%} of the peak" if "share_of_peak" in found else ", at most"
    return [
        *lines,
        _line("seconds", f"{step['seconds']:.3g} a step: {by_cycles}at least for {least}"),
        _line("speed", f"{found['tokens_per_second']:,.0f} tokens/s{share}"),
        _line("waves", _waves(found)),
        _line("job", f"{found['steps']} steps: {found['hours']:.3g} hours, {found['chip_hours']:,.0f} chip-hours"),
    ]


def _waves(found) -> str:
    waves = "1 wave" if found["waves"] == 1 else f"{found['waves']} waves"
    return f"{waves} of {found['slots']} experts; about {found['experts_that_fit']:,} would fit at a time"


def _candidates(found) -> list[str]:
    """The table of a search."""
    if not found:
        return []
    lines = ["", "candidates     mesh, experts at a time, rows at a time: chip-hours, at least by formulas"]
    for one in found[:LINES]:
        mesh = "x".join(map(str, one["mesh"].values())) or "one device"
        rows = f"{one['micro']} rows" + (", recomputed" if one["remat"] else "")
        hours = f"{one['chip_hours']:,.0f}, " if "chip_hours" in one else ""
        fits = "" if one.get("fits", True) else "does not fit, "
        lines.append(
            _line("", f"{mesh}, {one['slots']} experts, {rows}: {fits}{hours}at least {one['least_chip_hours']:,.0f}")
        )
    left = len(found) - LINES
    return [*lines, _line("", f"and {left} more that fit by formulas")] if left > 0 else lines


def _line(name, text):
    return f"{name:14} {text}".rstrip()


def _gib(size):
    return f"{size / 2**30:.2f}"
