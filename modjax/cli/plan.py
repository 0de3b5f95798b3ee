"""`modjax plan`: what a training job needs on devices that this machine need not have; nothing is loaded or trained."""

from typing import Any

from absl.flags import DEFINE_integer, DEFINE_string, FlagValues

from modjax.cli import build, session
from modjax.errors import InputError
from modjax.files import write_json
from modjax.parallel.distributed import from_first
from modjax.studies.plan import plan
from modjax.train.groups import groups_of

NEEDS = ("config", "topology")  # flags that must be given
EXAMPLE = "modjax plan --config=configs/private.py:phi2,batch=8,expert=32,fsdp=8 --topology=v5e:16x16 --experts=256"
SHOWN = 2**30 / 200  # bytes that are not 0.00 GiB
KINDS = ("base", "adapters", "optimizer", "batch", "padding")


def define_flags(values: FlagValues) -> None:
    DEFINE_string("topology", None, "cpu, this machine, or TPUs such as v5e:16x16, v5p:4x4x8, v6e:16x16", values)
    DEFINE_integer("slices", 1, "number of such TPU slices, joined by a data center network", flag_values=values)
    experts = "number of experts; by default those of the config's tasks and groups"
    DEFINE_integer("experts", None, experts, flag_values=values)
    targets = "target tokens of a row; by default a quarter of train.length"
    DEFINE_integer("targets", None, targets, flag_values=values)


def run(config, workdir, flags) -> None:
    """Prints memory, exchange and time of a training step, and the cost of the job; writes WORKDIR/plan.json, if given.

    Compiling takes minutes and a few GB of memory. For TPUs install modjax[plan]; no TPU is needed.
    """
    if config.recipe != "lora":
        raise InputError(f"config.recipe={config.recipe!r}: expected 'lora', the only recipe that can be planned")
    folder = session.enter(workdir, config) if workdir else None
    experts = flags.experts or len(groups_of(config.groups, build.tasks(config).training))
    found = plan(
        config.model,
        experts,
        flags.topology,
        flags.slices,
        config.mesh.to_dict(),
        flags.targets,
        config.quantize,
        **config.train.to_dict(),
    )
    if folder is not None:
        from_first(lambda: write_json(folder / "plan.json", found))
    print("\n".join(_lines(found)))


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
    ]


def _rates(found: dict[str, Any]) -> list[str]:
    if "wire" not in found:
        return []
    sent = [f"{axes} {size / 1e9:.3g} GB" for axes, size in found["wire"].items()]
    lines = [_line("wire", f"sent by a device in a step: {', '.join(sent) or 'nothing'}")]
    if "step" not in found:
        return lines
    step = found["step"]
    least = ", ".join(f"{kind} {step[kind]:.3g}" for kind in ("compute", "memory", "wire"))
    return [
        *lines,
        _line("seconds", f"{step['seconds']:.3g} a step: by cycles {step['by_cycles']:.3g}; at least for {least}"),
        _line("speed", f"{found['tokens_per_second']:,.0f} tokens/s, {found['share_of_peak']:.0%} of the peak"),
        _line("job", f"{found['steps']} steps: {found['hours']:.3g} hours, {found['chip_hours']:,.0f} chip-hours"),
    ]


def _line(name, text):
    return f"{name:14} {text}"


def _gib(size):
    return f"{size / 2**30:.2f}"
