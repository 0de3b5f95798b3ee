"""Cycles of a program compiled for a TPU, read from its text, by the source files that its instructions come from.

XLA writes an estimate of its cycles beside each instruction; what is in a loop counts once for each round. XLA does not
look into Pallas kernels: theirs are counted in the final machine code, one bundle a cycle.
"""

import collections
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

TABLES = ("FileNames", "FileLocations", "StackFrames")
_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.-]+) [^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r" while\(.*condition=%([\w.-]+), body=%([\w.-]+)")
_KERNEL = re.compile(r'%(\w+)[\w.]* = \(\w+\[([\d,]+)\].*custom_call_target="tpu_custom_call"')
_BUNDLE = re.compile(r"^ *(?:0x)?[0-9a-f]+ *(?:LH|LB|LE|PB|PF)? *: (>*) *\{", re.MULTILINE)


class Kernel(NamedTuple):
    """The cycles of an attention kernel, each part once."""

    head: int  # what is done once for a query head of a row
    query_block: int  # once for each block of queries
    pair: int  # for a pair of a query block and a key block that needs no mask
    masked_pair: int

    def of_path(self, blocks: int) -> int:
        """Cycles for one query head of a row that is one path, of this many blocks."""
        pairs = blocks * (blocks - 1) // 2 * self.pair + blocks * self.masked_pair
        return self.head + blocks * self.query_block + pairs


def kernels(folder: pathlib.Path) -> dict[str, Kernel]:
    """{name: attention kernel} from the final bundles that libtpu has written to a folder."""
    return {
        re.search(r"attention_\w+", path.name)[0]: kernel(path.read_text())
        for path in sorted(folder.glob("*-attention_*-final_bundles.txt"))
        if "schedule-analysis" not in path.name
    }


def kernel(bundles: str) -> Kernel:
    """An attention kernel from its machine code, in which `>` stands for each loop around a bundle.

    The loops are over heads, query blocks and key blocks. In the last there are two long branches: a pair of blocks
    without a mask and, after it, with a mask.
    """
    depths, runs = [len(marks) for marks in _BUNDLE.findall(bundles)], []
    for depth in depths:
        if not runs or runs[-1][0] != depth:
            runs.append([depth, 0])
        runs[-1][1] += 1
    head, query_block = (sum(bundles for depth, bundles in runs if depth == level) for level in (1, 2))
    pair, masked_pair = (bundles for depth, bundles in runs if depth == 3 and bundles > 100)
    return Kernel(head, query_block, pair, masked_pair)


class Program:
    """A compiled program, from `jax.stages.Compiled.as_text()`."""

    def __init__(self, text: str):
        found = _COMPUTATION.findall(text)
        self.lines = {name: body.split("\n") for _, name, body in found}
        self.entry = next(name for entry, name, _ in found if entry)
        self.files, self.locations, self.frames = (_table(text, title) for title in TABLES)

    def cycles(self, part_of: Callable[[str], str], kernels: Mapping[str, int]) -> collections.Counter:
        """{part: cycles of one run}.

        part_of: the part of a source file of modjax; instructions of no such file are of the part "".
        kernels: {name: cycles of one query head of a row}; they are of the part "attention".
        """
        return self._cycles(self.entry, part_of, kernels)

    def _cycles(self, computation, part_of, kernels):
        total = collections.Counter()
        for line in self.lines[computation]:
            if loop := _LOOP.search(line):
                condition, body = loop.groups()
                rounds = max(_number(r" constant\((\d+)\)", inner) for inner in self.lines[condition])
                inner = self._cycles(body, part_of, kernels)
                total.update({part: rounds * cycles for part, cycles in inner.items()})
            elif found := _KERNEL.search(line):
                *heads, _, _ = map(int, found[2].split(","))  # [..., heads, H, T]
                total["attention"] += math.prod(heads) * kernels[found[1]]
            elif cycles := _number(r'"estimated_cycles":"(\d+)"', line):
                total[part_of(self._file(line))] += cycles
        return total

    def _file(self, line) -> str:
        """The source file of the innermost line of modjax that an instruction comes from."""
        frame = _number(r"stack_frame_id=(\d+)", line)
        while frame:
            location = self.locations[_number(r"file_location_id=(\d+)", self.frames[frame])]
            path = self.files[_number(r"file_name_id=(\d+)", location)].strip('"')
            if "/modjax/" in path:
                return path.rsplit("/modjax/", 1)[1]
            frame = _number(r"parent_frame_id=(\d+)", self.frames[frame]) - 1
        return ""


def _table(text, title) -> dict[int, str]:
    body = re.search(rf"^{title}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)[1]
    return {int(number): entry for number, entry in (line.split(" ", 1) for line in body.split("\n"))}


def _number(pattern, text) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
