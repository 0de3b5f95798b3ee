"""Cycles of the attention kernels of a program compiled for a TPU, counted in their machine code, one bundle a cycle.

XLA's own estimates do not look into Pallas kernels.
"""

import pathlib
import re
from typing import NamedTuple

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
    found = {
        re.search(r"attention_\w+", path.name)[0]: kernel(path.read_text())
        for path in sorted(folder.glob("*-attention_*-final_bundles.txt"))
        if "schedule-analysis" not in path.name
    }
    return {name: one for name, one in found.items() if one is not None}


def kernel(bundles: str) -> Kernel | None:
    """An attention kernel from its machine code, in which `>` stands for each loop around a bundle.

    The loops are over heads, query blocks and key blocks. In the last there are two long branches: a pair of blocks
    without a mask and, after it, with a mask. None for a kernel without these loops, whose rows are of one block.
    """
    depths, runs = [len(marks) for marks in _BUNDLE.findall(bundles)], []
    for depth in depths:
        if not runs or runs[-1][0] != depth:
            runs.append([depth, 0])
        runs[-1][1] += 1
    head, query_block = (sum(bundles for depth, bundles in runs if depth == level) for level in (1, 2))
    pairs = [bundles for depth, bundles in runs if depth == 3 and bundles > 100]
    return Kernel(head, query_block, *pairs) if len(pairs) == 2 else None
