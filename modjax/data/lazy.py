"""Lazy: the examples of a task that stay in their file or table, and are read each time they are asked for."""

import abc
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from modjax import digest
from modjax.data.example import Example
from modjax.data.splits import SPLITS
from modjax.errors import InputError
from modjax.files import os_errors


class Lazy(Sequence):
    """A sequence of examples of which none is in memory."""

    sizes: Mapping[str, int]  # {split: its number of examples}
    fingerprint: str  # sixteen hexadecimal digits: that of other examples differs

    @abc.abstractmethod
    def __iter__(self) -> Iterator[Example]:
        """Reads all examples in order."""

    def split(self, split: str) -> tuple[Example, ...]:
        """Reads the examples of one split."""
        return tuple(example for example in self if example.split == split)

    def __len__(self) -> int:
        return sum(self.sizes.values())

    def __getitem__(self, index):
        return tuple(self)[index]


@dataclasses.dataclass(frozen=True, eq=False)
class FileExamples(Lazy):
    """The examples of a task that has a file of its own; the file is read once at first, to check and to count them.

    Raises InputError for a fault in the file, then or when it is read again, and if it has changed in between.
    """

    path: pathlib.Path
    parse: Callable[[pathlib.Path], Iterator[Example]]  # the examples of the file, at least one
    sizes: Mapping[str, int] = dataclasses.field(init=False)
    fingerprint: str = dataclasses.field(init=False)
    stamp: tuple[int, int] = dataclasses.field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "stamp", _stamp(self.path))
        sizes, content = summed(self)
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "fingerprint", content)

    def __iter__(self) -> Iterator[Example]:
        if _stamp(self.path) != self.stamp:
            raise InputError(f"{self.path}: has changed since its tasks were loaded; expected the same, or a new start")
        return self.parse(self.path)


def summed(examples: Iterable[Example]) -> tuple[dict[str, int], str]:
    """{split: its number of examples}, and the digest of all texts in their order; one example at a time is read."""
    sizes, lines = dict.fromkeys(SPLITS, 0), digest.Lines()
    for one in examples:
        sizes[one.split] += 1
        lines.add([one.source, one.target, one.split, one.references])
    return sizes, lines.digits()


def _stamp(path) -> tuple[int, int]:
    with os_errors(path, "read"):
        found = os.stat(path)
    return found.st_size, found.st_mtime_ns
