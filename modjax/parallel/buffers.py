"""The largest buffers of a compiled program, each with the code that makes it, from the file in which XLA lists them.

Only intermediate arrays are meant, in the main memory of a device: arguments are known by their shapes. Buffers that
are not in use at the same time share memory, so that their sizes do not add up.
"""

import pathlib
import re
from typing import NamedTuple

from modjax.parallel.program import Program

OPTIONS = {"xla_dump_hlo_as_text": True}  # of the compiler; with "xla_dump_to", a folder, it writes the list there
_ALLOCATION = re.compile(r"^allocation \d+: (.*)\n((?: value: .*\n?)*)", re.MULTILINE)
_VALUE = re.compile(r" value: <\d+ ([\w.-]+)(?:\{[\d,]*\})?(?: \(phi\))? @\d+> \(size=(\d+),offset=(\d+)\): ([^{(]*)")


class Buffer(NamedTuple):
    """An intermediate array, or several of the same size and origin."""

    size: int  # bytes on a device, of one of them
    number: int  # in different places of the memory
    shape: str  # on a device, as XLA writes it
    origin: str  # the pass and the functions that it comes from


def buffers(folder: pathlib.Path, program: Program, most: int = 6) -> list[Buffer]:
    """The largest buffers of a program that was compiled with OPTIONS and this folder; none if XLA wrote no list."""
    return [one for path in folder.glob("*buffer-assignment.txt") for one in largest(path.read_text(), program, most)]


def largest(assignment: str, program: Program, most: int) -> list[Buffer]:
    """The largest buffers in the text of XLA's assignment of buffers to memory."""
    shapes, places = {}, {}
    for title, values in _ALLOCATION.findall(assignment):
        if "preallocated-temp" not in title or "color" in title:  # other colors are other memories
            continue
        for name, size, offset, shape in _VALUE.findall(values):
            place, origin = (int(offset), int(size)), program.origin(name, shape)
            if shape and origin and place not in places:
                places[place] = found = (int(size), shape, origin)
                shapes[found] = shapes.get(found, 0) + 1
    found = sorted(shapes.items(), key=lambda item: (-item[0][0], item[0]))[:most]
    return [Buffer(size, number, shape, origin) for (size, shape, origin), number in found]
