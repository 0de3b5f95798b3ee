"""The data of the page's routing explorer: sentences, their tokens, and the weights in compact form."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from modjax.errors import InputError
from modjax.report.colours import expert_colours

SCALE = 1000  # weights are stored as whole thousandths


def explorer(sentences: Sequence[Mapping], clusters: Mapping[str, int]) -> list[dict[str, Any]]:
    """One entry per sentence, for `page.js`; weights are ints in thousandths, flattened from [layer][token][expert].

    `clusters` is {expert: cluster}. Raises InputError where weights are not [L][T][E].
    """
    return [_entry(sentence, clusters) for sentence in sentences]


def _entry(sentence: Mapping, clusters: Mapping[str, int]) -> dict[str, Any]:
    tokens, experts = [str(token) for token in sentence["tokens"]], list(sentence["experts"])
    weights_LTE = _weights(sentence["weights"], (len(tokens), len(experts)))
    return {
        "library": sentence.get("library") or "",
        "text": sentence.get("text") or "".join(tokens),
        "tokens": tokens,
        "experts": experts,
        "colours": expert_colours(experts, clusters),
        "layers": len(weights_LTE),
        "weights": np.rint(weights_LTE * SCALE).astype(int).ravel().tolist(),
        "expected": sentence.get("expected"),
    }


def _weights(weights: Sequence, shape: tuple[int, int]) -> np.ndarray:
    """float64[L, T, E], zero where a weight is missing."""
    tokens, experts = ({len(part) for part in parts} for parts in (weights, chain.from_iterable(weights)))
    if tokens != {shape[0]} or experts != {shape[1]}:
        raise InputError(f"results: routing.weights must hold, for each layer, {shape[0]} tokens of {shape[1]} experts")
    return np.nan_to_num(np.array(weights, np.float64), posinf=0.0, neginf=0.0).reshape(len(weights), *shape)
