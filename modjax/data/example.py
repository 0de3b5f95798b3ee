"""Example: one text in, one text out, in one split."""

import dataclasses
import functools

import numpy as np

from modjax import arguments

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Example:
    """One example: `source` is the whole prompt, `target` the text to learn."""

    source: str
    target: str
    split: str  # one of SPLITS
    references: tuple[str, ...] = ()  # every accepted answer; () means (target,)
    id: str = dataclasses.field(default="", compare=False)  # of the source; names the example in errors and files

    def __post_init__(self):
        arguments.check_fields(self, ("source", "target", "id"), arguments.text)
        arguments.check_fields(self, ("split",), arguments.choice, SPLITS)
        arguments.check_fields(self, ("references",), arguments.texts)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every accepted answer."""
        return self.references or (self.target,)

    @classmethod
    def of(cls, source: str, outputs: list[str], split: str, id: str = "") -> "Example":
        """The example with the first of the accepted answers as its target."""
        references = tuple(dict.fromkeys(outputs))
        return cls(source, outputs[0], split, references if len(references) > 1 else (), id)


@functools.cache
def assign_split(index: int, train: float = 0.8, validation: float = 0.1) -> str:
    """The split of an example that has none, from its index only.

    As in the FLAN data of the MBC and Arrow paper (arXiv:2405.11157): u = RandomState(index).uniform(); train if u is
    below 0.8, validation below 0.9, test above. So adding examples changes the split of no other.
    """
    u = np.random.RandomState(index).uniform()
    if u < train:
        return "train"
    return "validation" if u < train + validation else "test"
