"""The metrics that methods are compared by. To add one, write its function and append it to METRICS."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Metric:
    """One measure of a method: its name, how examples are averaged, and whether lower or higher is better.

    Attributes:
      name: its key in scores, results and JSON files, and a CSS class of the report, such as "rouge_l".
      text: its name within a sentence, such as "exact match".
      short: the heading of a narrow column.
      unit: "%" for fractions in [0, 1], which are shown in percent; else the unit in words.
      better: which values are better.
      per: "token" where an example's value is a sum over its target tokens and the mean is over all target tokens of
        a task; "example" where the mean is over examples.
      of_answer: the value of a generated answer, given the answer and all accepted answers; None where the metric is
        not computed from answers.
    """

    name: str
    text: str
    short: str
    unit: str
    better: Literal["lower", "higher"]
    per: Literal["token", "example"] = "example"
    of_answer: Callable[[str, Sequence[str]], float] | None = None

    @property
    def title(self) -> str:
        """The name as a heading, such as "Exact match"."""
        return self.text[0].upper() + self.text[1:]

    @property
    def in_percent(self) -> bool:
        return self.unit == "%"

    def best(self, values: Iterable[float]) -> float:
        """The lowest or the highest value, whichever is better."""
        return (min if self.better == "lower" else max)(values)


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals an accepted answer, else 0; white space at the ends is ignored, case counts."""
    return float(prediction.strip() in {answer.strip() for answer in answers})


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """Rouge-L F-measure with stemming, the best over the accepted answers, as Super-NaturalInstructions scores.

    A prediction that equals an answer scores 1 even where Rouge, which drops everything but the letters a to z and
    digits, finds no word in it.
    """
    if exact_match(prediction, answers):
        return 1.0
    return max(_rouge_scorer().score(answer, prediction)["rougeL"].fmeasure for answer in answers)


@functools.cache
def _rouge_scorer() -> Any:
    from rouge_score import rouge_scorer  # here, because it imports nltk, which takes more than a second

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


LOSS = Metric("loss", "loss", "Loss", "nats per target token", "lower", per="token")
EXACT_MATCH = Metric("exact_match", "exact match", "Exact", "%", "higher", of_answer=exact_match)
ROUGE_L = Metric("rouge_l", "Rouge-L", "Rouge-L", "%", "higher", of_answer=rouge_l)
METRICS = (LOSS, EXACT_MATCH, ROUGE_L)


def named(name: str) -> Metric:
    """The metric of METRICS with this name. Raises KeyError where there is none."""
    return {metric.name: metric for metric in METRICS}[name]
