"""Does the similarity of two tasks' experts say whether training them together helps? (arXiv 2405.11157, section 3.1)

Pairs of private experts are chosen over the whole range of similarity, and one joint expert is trained for each. Its
gain is what its tasks' test losses fall by, in nats a target token, from the private experts':

    gain = mean over the pair's two experts of (private loss - joint loss) on that expert's own tasks

The claim is that gain rises with similarity. Pairs that share a task are not independent of each other, which the
bootstrap over pairs does not know: its interval is somewhat too narrow.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from modjax.data.tasks import Task, Tasks
from modjax.errors import InputError
from modjax.eval.intervals import RESAMPLES, interval
from modjax.eval.likelihood import target_loss
from modjax.eval.sample import Sample, prepared
from modjax.experts.library import Library
from modjax.model import Model
from modjax.routing.oracle import oracle


class Estimate(NamedTuple):
    """A figure and the interval that holds 95 % of it over resampled pairs."""

    value: float
    low: float
    high: float


class Bin(NamedTuple):
    """Pairs of neighbouring similarity."""

    low: float  # the least similarity in it
    high: float  # and the greatest
    pairs: int
    gain: Estimate  # the mean


def choose_pairs(similarity_EE: np.ndarray, count: int, seed: int = 0) -> list[tuple[int, int]]:
    """`count` pairs of experts spread evenly over the ranks of their similarity, from the least alike to the most.

    All pairs are cut, in order of similarity, into `count` parts of equal size. Of each the pair is taken whose experts
    have been in fewest pairs so far, so that no task decides the result; `seed` breaks ties.

    Raises InputError for fewer than 3 pairs, or more than there are.
    """
    first, second = np.triu_indices(len(similarity_EE), 1)
    if not 3 <= count <= len(first):
        raise InputError(f"{count} pairs of {len(similarity_EE)} experts; expected 3 to {len(first)}")
    rng = np.random.default_rng(seed)
    used_E = np.zeros(len(similarity_EE), int)
    chosen = []
    for part in np.array_split(np.argsort(np.asarray(similarity_EE)[first, second], kind="stable"), count):
        part = rng.permutation(part)
        pair = part[np.argmin(used_E[first[part]] + used_E[second[part]])]
        chosen.append((int(first[pair]), int(second[pair])))
        used_E[list(chosen[-1])] += 1
    return chosen


def levelled(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, with training examples repeated until each has as much text to learn from as the one with most.

    Rows to train on are drawn from what all tasks of an expert fill together. Of two tasks as they are, the one with
    more text would have most of a joint expert's training; so each has half of it, as much as its private expert had.
    """
    sizes = [sum(len(one.source) + len(one.target) for one in task.split("train")) for task in tasks]
    found = []
    for task, size in zip(tasks, sizes, strict=True):
        own = task.split("train")
        repeated = itertools.islice(itertools.cycle(own), round(len(own) * max(sizes) / max(size, 1)))
        rest = (one for one in task if one.split != "train")
        found.append(dataclasses.replace(task, examples=(*repeated, *rest)))
    return found


def losses(
    model: Model,
    library: Library,
    tasks: Tasks,
    sample: Sample = Sample(),  # noqa: B008, frozen
    batch: int = 32,
) -> dict[str, dict[str, float]]:
    """{expert: {task: loss}} of every expert on each task it was trained on, in nats per target token.

    A task's examples are the same under every expert.
    """
    encoded = {
        name: [one.encoded for one in prepared(model, tasks.select([name]), sample)]
        for name in dict.fromkeys(task for own in library.tasks for task in own)
    }
    cells = [(e, task) for e, own in enumerate(library.tasks) for task in own]
    read = [one for _, task in cells for one in encoded[task]]
    ids = [e for e, task in cells for _ in encoded[task]]
    totals_n, counts_n = target_loss(model, read, model.bind(library, oracle(library)), ids, batch)
    ends = np.cumsum([len(encoded[task]) for _, task in cells])[:-1]
    means = [
        nats.sum() / count.sum() for nats, count in zip(*(np.split(x, ends) for x in (totals_n, counts_n)), strict=True)
    ]
    found: dict[str, dict[str, float]] = {name: {} for name in library.names}
    for (e, task), loss in zip(cells, means, strict=True):
        found[library.names[e]][task] = float(loss)
    return found


def spearman(x_P: Sequence[float], y_P: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Spearman's rank correlation, ties sharing their mean rank, with a bootstrap interval over the P pairs.

    NaN where either side is all one value; draws in which one is are left out of the interval.
    """
    x_P, y_P = np.asarray(x_P, np.float64), np.asarray(y_P, np.float64)
    drawn_SP = np.random.default_rng(seed).integers(0, len(x_P), (resamples, len(x_P)))
    rho_S = _rank_correlation(x_P[drawn_SP], y_P[drawn_SP])
    return _estimate(float(_rank_correlation(x_P[None], y_P[None])[0]), rho_S[np.isfinite(rho_S)])


def binned(similarity_P: Sequence[float], gain_P: Sequence[float], bins: int, resamples: int = RESAMPLES) -> list[Bin]:
    """The mean gain in bins of equally many pairs, cut at quantiles of similarity, from the least to the most similar.

    Raises InputError for fewer pairs than bins.
    """
    similarity_P, gain_P = np.asarray(similarity_P, np.float64), np.asarray(gain_P, np.float64)
    if not 1 <= bins <= len(gain_P):
        raise InputError(f"{bins} bins of {len(gain_P)} pairs; expected 1 to {len(gain_P)}")
    found = []
    for number, part in enumerate(np.array_split(np.argsort(similarity_P, kind="stable"), bins)):
        drawn_Sn = np.random.default_rng(number).choice(gain_P[part], (resamples, len(part)))
        gain = _estimate(float(gain_P[part].mean()), drawn_Sn.mean(axis=1))
        found.append(Bin(*map(float, similarity_P[part[[0, -1]]]), len(part), gain))
    return found


def _rank_correlation(x_SP, y_SP):
    """float64[S], the correlation of the ranks in each row."""
    ranks = (rankdata(side_SP, axis=1) for side_SP in (x_SP, y_SP))
    x_SP, y_SP = (side_SP - side_SP.mean(axis=1, keepdims=True) for side_SP in ranks)
    with np.errstate(invalid="ignore"):  # 0 / 0 where a row is all one value
        return (x_SP * y_SP).sum(axis=1) / np.sqrt((x_SP**2).sum(axis=1) * (y_SP**2).sum(axis=1))


def _estimate(value, drawn_S):
    if not len(drawn_S):
        return Estimate(value, np.nan, np.nan)
    return Estimate(value, *map(float, interval(drawn_S)))
