"""Likelihoods of choices, and whether the most likely one is right under each normalisation of length.

    acc        log P(choice | context)
    acc_norm   log P / characters of the choice                    (lm-evaluation-harness)
    acc_bytes  log P / bytes of the choice in UTF-8                (lm-evaluation-harness)
    acc_token  log P / tokens of the choice                        (mttl, the reference code of arXiv 2405.11157)

Characters and bytes are counted without the space before the choice. Of equal choices the first is taken.
"""

from collections.abc import Sequence

import numpy as np

from modjax.eval.benchmarks import encoding
from modjax.eval.benchmarks.benchmark import Choices
from modjax.eval.likelihood import target_loss
from modjax.model import Model
from modjax.routing.base import Bound

METRICS = ("acc", "acc_norm", "acc_bytes", "acc_token")


def scores(
    model: Model, bound: Bound | None, questions: Sequence[Choices], choice: int | None, batch: int, chat: bool
) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    """{metric: float64[n]}, 1 where the question is answered right, and the log-likelihoods of each question's choices.

    All choices of all questions are packed together; the context of a question is read once where the router allows it.

    Args:
      choice: of the router, for all questions; None for a router without choices.
    """
    space = "" if chat else " "  # a reply begins at once
    pairs = [
        encoding.pair(model, context, space + continuation, chat)
        for one in questions
        for context, continuation in zip(one.contexts, one.continuations, strict=True)
    ]
    nats, tokens = target_loss(model, pairs, bound, None if choice is None else [choice] * len(pairs), batch)
    ends = np.cumsum([len(one.continuations) for one in questions])[:-1]
    each = list(zip(questions, np.split(-nats, ends), np.split(tokens, ends), strict=True))
    found = {metric: [] for metric in METRICS}
    for one, loglikelihoods, counts in each:
        for metric, size_of in _sizes(one, counts).items():
            found[metric].append(float(np.argmax(loglikelihoods / size_of) == one.gold))
    return {metric: np.asarray(values) for metric, values in found.items()}, [own.tolist() for _, own, _ in each]


def _sizes(one: Choices, counts: np.ndarray) -> dict[str, np.ndarray]:
    """{metric: what the log-likelihood of each choice is divided by}."""
    characters = np.asarray([max(len(text), 1) for text in one.continuations])
    octets = np.asarray([max(len(text.encode()), 1) for text in one.continuations])
    return {"acc": np.ones(len(counts)), "acc_norm": characters, "acc_bytes": octets, "acc_token": counts}
