"""The claims of arXiv 2405.11157, and (f, g) those of confident routing, each with the figure that decides it.

A claim is held if its whole interval lies on its side of the limit, not held if all of it lies on the other side, and
undecided at this scale otherwise.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from modjax import metrics
from modjax.eval.hierarchy import Figures
from modjax.eval.intervals import Estimate

MARGIN = {"loss": 0.05, "rouge_l": 0.01}  # how much worse still counts as a match
NO_LOSS = {metric: -margin for metric, margin in MARGIN.items()}
CLOSE = 0.8  # the share of the gap that is close to the oracle


class Results(NamedTuple):
    """What claims are judged on."""

    in_distribution: Figures | None  # None without tasks
    held_out: Figures | None
    transfer: Estimate | None = None  # the rank correlation of similarity and gain

    def has(self, part: str, methods: Collection[str]) -> bool:
        """Whether the figures of a part have these methods."""
        found = getattr(self, part)
        return found is not None and set(methods) <= set(found.methods)


class Claim(NamedTuple):
    """A claim and the figure that decides it: it holds if the figure lies above the limit."""

    key: str
    text: str
    figure: str  # what is measured
    part: str  # of the results: "in_distribution", "held_out" or "transfer"
    methods: tuple[str, ...]  # whose scores the figure is made of
    measure: Callable[[Results, str], Estimate]  # of the results and a metric
    limit: Mapping[str, float] = {}  # of a metric; 0 where it has none

    def judged(self, results: Results, metric: str) -> dict[str, Any]:
        """The claim with its estimate and verdict, as plain data."""
        limit = self.limit.get(metric, 0.0)
        measured = results.has(self.part, self.methods) if self.methods else results.transfer is not None
        found = self.measure(results, metric) if measured else Estimate(math.nan, math.nan, math.nan)
        return {
            "claim": self.key,
            "text": self.text,
            "figure": self.figure,
            "metric": metric,
            "limit": limit,
            **found.as_json(),
            "verdict": verdict(found, limit) if measured else "not measured",
        }


def verdict(found: Estimate, limit: float) -> str:
    """held, not held or undecided: where the interval lies beside the limit."""
    if found.low > limit:
        return "held"
    return "not held" if found.high < limit else "undecided"


def gain(
    key: str, text: str, figure: str, part: str, first: str, second: str, limit: Mapping[str, float] = {}
) -> Claim:
    """The claim that the first method is better than the second on a part, whichever direction the metric has."""

    def measure(results, metric):
        sign = -1.0 if metrics.named(metric).better == "lower" else 1.0
        return getattr(results, part).combined(metric, {first: sign, second: -sign})

    return Claim(key, text, figure, part, (first, second), measure, limit)


def _adapted(examples: int) -> Claim:
    return gain(
        f"e, {examples}",
        f"with {examples} examples of a new task, an MBC library is a better start than none",
        "gain of the adapted MBC library over LoRA from scratch",
        "held_out",
        f"adapt MBC {examples}",
        f"adapt LoRA {examples}",
    )


def _closed(key: str, router: str) -> Claim:
    """The claim that a router over private experts comes close to the oracle."""
    methods = router, "mu (private)", "oracle (private)"
    return Claim(
        key,
        f"{router} comes close to the oracle in distribution",
        f"share of the gap from mu to the oracle that {router} closes",
        "in_distribution",
        methods,
        lambda results, metric: results.in_distribution.share(metric, *methods),
        dict.fromkeys(MARGIN, CLOSE),
    )


def _no_loss(key: str, router: str, other: str) -> Claim:
    return gain(
        key,
        f"{router} loses nothing to {other} on new tasks",
        f"gain of {router} over {other}, held out",
        "held_out",
        router,
        other,
        NO_LOSS,
    )


def _near_the_oracle_and_no_worse(key: str, router: str) -> tuple[Claim, ...]:
    others = {"mu": "mu (private)", "Arrow": "Arrow (private)", "shared": "shared"}
    return _closed(key, router), *(_no_loss(f"{key}, {short}", router, other) for short, other in others.items())


CLAIMS = (
    Claim(
        "a",
        "the similarity of two tasks' LoRAs predicts whether training them together helps",
        "Spearman's correlation of similarity and gain",
        "transfer",
        (),
        lambda results, metric: results.transfer,
    ),
    gain(
        "b",
        "MBC's clusters are better than random clusters of the same sizes",
        "gain of MBC over random, each task with its cluster's expert",
        "in_distribution",
        "oracle (MBC)",
        "oracle (random)",
    ),
    gain(
        "b, Arrow",
        "the same with Arrow, on new tasks",
        "gain of MBC over random, held out",
        "held_out",
        "Arrow (MBC)",
        "Arrow (random)",
    ),
    gain(
        "c, mu",
        "Arrow is better than the mean of the experts on new tasks",
        "gain of Arrow over mu, held out",
        "held_out",
        "Arrow (private)",
        "mu (private)",
    ),
    gain(
        "c, base",
        "MBC with Arrow is better than the base model on new tasks",
        "gain of MBC with Arrow over the base, held out",
        "held_out",
        "Arrow (MBC)",
        "base",
    ),
    gain(
        "c, shared",
        "MBC with Arrow matches or beats the shared expert on new tasks",
        "gain of MBC with Arrow over the shared expert, held out",
        "held_out",
        "Arrow (MBC)",
        "shared",
        NO_LOSS,
    ),
    _closed("d", "Arrow (private)"),
    *map(_adapted, (10, 50, 100)),
    *_near_the_oracle_and_no_worse("f", "confident (private)"),
    *_near_the_oracle_and_no_worse("g", "confident, else general"),
)
