"""What the text of a compiled program tells: rounds of loops, cycles by source file, bytes on the wire by mesh axis.

On a TPU, XLA writes an estimate of its cycles beside each instruction, without waiting for memory and other chips.
What is in a loop counts once for each round. Pallas kernels are not in these estimates; see kernels.py.
"""

import collections
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping

import jax

from modjax.parallel.collectives import Collective, collectives

TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
PASSES = {"rematted_computation": "recomputed", "transpose(jvp": "backward", "jvp(": "forward", "": "update"}
OUTER = ("layer", "loss_sum")  # functions outside of which the calls are the same for all layers, or rows
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) [^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)")
_CALL = re.compile(r" call\(.*to_apply=%([\w.-]+)")
_BRANCHES = re.compile(r" conditional\(.*?(?:branch|true)_computations?=(.*)")
_FUSED = re.compile(r" calls=%([\w.-]+)")
_NAME = re.compile(r"%([\w.-]+)")
_SLICED = " dynamic-update-slice("
_RESULT = re.compile(r" *(?:ROOT )?%([\w.-]+) = ")
_KERNEL = re.compile(r'%(\w+)[\w.]* = \(\w+\[([\d,]+)\].*custom_call_target="tpu_custom_call"')


class Program:
    """A compiled program, from `jax.stages.Compiled.as_text()`."""

    def __init__(self, text: str):
        found = _COMPUTATION.findall(text)
        self.lines = {name: body.split("\n") for _, name, body in found}
        self.files, self.functions, self.locations, self.frames = (_table(text, title) for title in TABLES)
        self.unknown_loops = 0  # loops whose number of rounds is not in the text; they count as one round
        self._times = collections.Counter()  # {computation: how often it runs}, without those within fusions
        self._visit(next(name for entry, name, _ in found if entry), 1)

    @functools.cached_property
    def _instructions(self) -> dict[str, str]:
        """{name: instruction}."""
        every = (line for lines in self.lines.values() for line in lines)
        return {found[1]: line for line in every if (found := _RESULT.match(line))}

    def origin(self, name: str, shape: str) -> str:
        """The pass of training and the functions of modjax that make an array of an instruction; "" if unknown.

        Such as "backward: Block/feed_forward/maps/Linear". What the forward pass collects over layers, by writing a
        slice of the array in each, is kept for the backward pass.
        """
        line = self._instructions.get(name, "")
        calls = [_called(function) for _, function in self._places(line)]
        if not calls:
            return ""
        outer = next((number for number, call in enumerate(calls) if call in OUTER), len(calls))
        found = re.search(r'op_name="([^"]*)"', line)
        during = next(words for part, words in PASSES.items() if part in (found[1] if found else ""))
        if during == "forward" and any(f" = {shape}{{" in one and _SLICED in one for one in self._inside(line)):
            during = "kept for backward"
        return f"{during}: {'/'.join(call for call in calls[:outer][::-1] if call[0] != '<')}"

    @property
    def kernels(self) -> set[str]:
        """The names of its Pallas kernels."""
        return {found[1] for line, _ in self._run() if (found := _KERNEL.search(line))}

    def cycles(self, part_of: Callable[[str], str], kernels: Mapping[str, int]) -> collections.Counter:
        """{part: cycles of one run}.

        part_of: the part of a source file of modjax; instructions of no such file are of the part "".
        kernels: {name: cycles of one query head of a row}; they are of the part "attention". Others count nothing.
        """
        total = collections.Counter()
        for line, times in self._run():
            if found := _KERNEL.search(line):
                *heads, _, _ = map(int, found[2].split(","))  # [..., heads, H, T]
                total["attention"] += times * math.prod(heads) * kernels.get(found[1], 0)
            elif cycles := _number(r'"estimated_cycles":"(\d+)"', line):
                total[part_of(self._file(line))] += times * cycles
        return total

    def wire(self, mesh: jax.sharding.Mesh, network: bool = False) -> dict[str, int]:
        """{mesh axes joined by "+": bytes that a device sends along them in one run}, at most, by ring algorithms.

        An asynchronous collective stands in several instructions with one channel id, and counts once.
        network: what goes between slices of TPUs in place of what stays within them.
        """
        total = collections.Counter()
        for one, times in self._exchange(mesh):
            if one.network == network:
                total["+".join(one.axes)] += times * one.sent
        return {axes: sent for axes, sent in sorted(total.items()) if axes and sent}

    def _exchange(self, mesh) -> Iterator[tuple[Collective, int]]:
        """(collective, how often it runs), each once."""
        for name, times in self._times.items():
            found = collectives("\n".join(self._with_fused(name)), mesh)
            once = {one.channel or f"none {number}": one for number, one in enumerate(found)}
            yield from ((one, times) for one in once.values())

    def _visit(self, name, times):
        """Counts a computation, and those that its loops, calls and branches run; of branches each counts."""
        self._times[name] += times
        for line in self.lines[name]:
            if loop := _LOOP.search(line):
                self._visit(loop[2], times * self._rounds(line, loop[1]))
            elif call := _CALL.search(line):
                self._visit(call[1], times)
            elif branches := _BRANCHES.search(line):
                for branch in _NAME.findall(branches[1].partition("metadata=")[0]):
                    self._visit(branch, times)

    def _rounds(self, line, condition) -> int:
        """The rounds of a loop: as XLA found it, or the limit in its condition."""
        limits = (_number(r" constant\((\d+)\)", inner) for inner in self._with_fused(condition))
        rounds = _number(r'"known_trip_count":\{"n":"(\d+)"', line) or max(limits)
        self.unknown_loops += not rounds
        return rounds or 1

    def _run(self) -> Iterator[tuple[str, int]]:
        """(instruction, how often it runs) of all instructions but those within fusions."""
        for name, times in self._times.items():
            yield from ((line, times) for line in self.lines[name])

    def _with_fused(self, name) -> Iterator[str]:
        """The instructions of a computation and of the fusions in it."""
        for line in self.lines[name]:
            yield from self._inside(line)

    def _inside(self, line) -> Iterator[str]:
        """An instruction, and those of a fusion that it calls."""
        yield line
        if fused := _FUSED.search(line):
            yield from self._with_fused(fused[1])

    def _file(self, line) -> str:
        """The source file of the innermost line of modjax that an instruction comes from."""
        return next((file for file, _ in self._places(line)), "")

    def _places(self, line) -> list[tuple[str, str]]:
        """(file, function) of the calls within modjax that an instruction comes from, the innermost first."""
        found, frame = [], _number(r"stack_frame_id=(\d+)", line)
        while frame:
            location = self.locations[_number(r"file_location_id=(\d+)", self.frames[frame])]
            path = self.files[_number(r"file_name_id=(\d+)", location)].strip('"')
            if "/modjax/" in path:
                function = self.functions[_number(r"function_name_id=(\d+)", location)].strip('"')
                found.append((path.rsplit("/modjax/", 1)[1], function))
            frame = _number(r"parent_frame_id=(\d+)", self.frames[frame]) - 1
        return found


def _called(function) -> str:
    """The name of a function without those around it; the name of the class for a call of an object."""
    outer, _, name = function.rpartition(".")
    return outer.rpartition(".")[2] if name == "__call__" else name


def _table(text, title) -> dict[int, str]:
    found = re.search(rf"^{title}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    lines = found[1].split("\n") if found else []
    return {int(number): entry for number, entry in (line.split(" ", 1) for line in lines)}


def _number(pattern, text) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
