"""What a method did on a task, example by example, so that methods can be compared on the same examples."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from modjax.errors import InputError

METRICS = ("loss", "exact_match", "rouge_l")


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """One method on the n examples of one task.

    Attributes:
      nats_n: float64, each example's loss summed over its target tokens.
      targets_n: int, how many those are.
      exact_n: float64, 1 where the answer equals an accepted one, else 0.
      rouge_n: float64, Rouge-L F-measure, 0 to 1.
    """

    nats_n: np.ndarray
    targets_n: np.ndarray
    exact_n: np.ndarray
    rouge_n: np.ndarray

    @property
    def loss(self) -> float:
        """Nats a target token, over all target tokens of the sample."""
        return float(self.nats_n.sum() / self.targets_n.sum())

    @property
    def exact_match(self) -> float:
        return float(self.exact_n.mean())

    @property
    def rouge_l(self) -> float:
        return float(self.rouge_n.mean())

    @property
    def examples(self) -> int:
        return len(self.nats_n)

    def as_json(self) -> dict:
        """The means for readers, and `each` for intervals, to a millionth."""
        each = {field.name.removesuffix("_n"): getattr(self, field.name) for field in dataclasses.fields(self)}
        means = {name: getattr(self, name) for name in (*METRICS, "examples")}
        return means | {"each": {name: values_n.round(6).tolist() for name, values_n in each.items()}}

    @classmethod
    def from_json(cls, value: Mapping) -> "Score":
        """What `as_json` gave. Raises InputError where the examples are missing."""
        each = value.get("each")
        names = [field.name.removesuffix("_n") for field in dataclasses.fields(cls)]
        if not isinstance(each, Mapping) or not set(names) <= set(each):
            raise InputError(
                f"a score has the keys {', '.join(value)}; expected 'each' with the examples' {', '.join(names)}. "
                "Files of an earlier version hold means alone: delete them and evaluate again"
            )
        return cls(*(np.asarray(each[name]) for name in names))


def summary(scores: Mapping[str, Score], names: Sequence[str]) -> dict[str, float] | None:
    """Unweighted means over the named tasks; None unless all of them were scored."""
    if not names or any(name not in scores for name in names):
        return None
    own = [scores[name] for name in names]
    means = {metric: float(np.mean([getattr(score, metric) for score in own])) for metric in METRICS}
    return means | {"examples": sum(score.examples for score in own)}
