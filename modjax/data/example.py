"""Example: one text in, one text out, in one split."""

import dataclasses

from modjax import arguments
from modjax.data.splits import SPLITS


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
