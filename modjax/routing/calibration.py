"""Calibration: the scores of each expert, standardised by their mean and standard deviation on unrelated text.

An expert scores high on all inputs if its factors are large, or if it amplifies directions that all text has.
Standardising its scores removes this (SEQR, arXiv 2509.18093).
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.messages import Prompt
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.files import read_lines
from modjax.parallel.distributed import gather
from modjax.routing.base import BaseModel
from modjax.routing.prompt import batches, encoded

Calibrated = TypeVar("Calibrated")  # a router with raw(site, x_BTI) -> float32[B,T,E], mean and deviation


def uncalibrated(library: Library) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Means of 0 and standard deviations of 1, {site: float32[L,E]} each, which do not change scores."""
    shapes = {site: lora.b.shape[:2] for site, lora in library.loras.items()}
    return tuple({site: jnp.full(shape, value, jnp.float32) for site, shape in shapes.items()} for value in (0, 1))


def standardised(score_BTE: jax.Array, mean_E: jax.Array, deviation_E: jax.Array) -> jax.Array:
    """(score - mean) / deviation; score - mean if the deviation is 0, as for an expert without factors there."""
    return (score_BTE - mean_E[None, None]) / jnp.where(deviation_E > 0, deviation_E, 1)[None, None]


def calibrate(
    router: Calibrated,
    model: BaseModel,
    prompts: Sequence[Prompt | np.ndarray],
    system: str | None = None,
    batch: int = 16,
) -> Calibrated:
    """The router with its scores standardised on these prompts, by layer, site and expert.

        mean_e, deviation_e = mean and standard deviation of score_e(x) over the base model's inputs x at all tokens

    Args:
      router: a `seqr` or `pooled` router; an earlier calibration is replaced.
      prompts: texts, conversations, or arrays of token ids, unrelated to the experts or equally related to all. The
        base model reads them once.
      system: as in `Model.generate`.
      batch: prompts per batch; it changes results only by rounding.

    Raises InputError for a router of another kind, for an empty list of prompts, and for invalid prompts.
    """
    if not hasattr(router, "raw"):
        raise InputError(
            f"the {type(router).__name__} router cannot be calibrated; expected a router of `seqr` or `pooled`"
        )
    rows_of = batches(encoded(model, prompts, system), batch, model.params.row_shards)
    parts = [gather(_moments(model.params, router, rows)) for _, rows in rows_of]
    whole = functools.reduce(_joined, (jax.tree.map(np.float64, part) for part in parts))
    deviation = {site: jnp.float32(np.sqrt(square_LE / whole.count)) for site, square_LE in whole.square.items()}
    return dataclasses.replace(router, mean=jax.tree.map(jnp.float32, whole.mean), deviation=deviation)


def neutral_prompts(tasks: Tasks, of: str | int) -> list[str]:
    """Prompts to calibrate on: the lines of a text file, or the first validation prompts of each task.

    of: the path of the file, or the number of prompts per task. Raises InputError if it is neither.
    """
    if pathlib.Path(str(of)).is_file():
        return read_lines(str(of))
    if not str(of).isdecimal():
        raise InputError(f"calibrate = {of!r}; expected a text file, or a number of prompts per task")
    return [one.source for task in tasks.values() for one in task.split("validation")[: int(of)]]


class _Moments(NamedTuple):
    """Moments of raw scores over some tokens."""

    count: jax.Array  # number of tokens
    mean: dict[str, jax.Array]  # {site: [L,E]}
    square: dict[str, jax.Array]  # {site: [L,E]}, sum of squared differences from the mean


def _joined(one: _Moments, two: _Moments) -> _Moments:
    """The moments over both sets of tokens, without subtracting large sums (Chan, Golub and LeVeque, 1979)."""
    count = one.count + two.count
    share = two.count / count
    gap = jax.tree.map(np.subtract, two.mean, one.mean)
    mean = jax.tree.map(lambda a, g: a + g * share, one.mean, gap)
    square = jax.tree.map(lambda a, b, g: a + b + g**2 * one.count * share, one.square, two.square, gap)
    return _Moments(count, mean, square)


@jax.jit
def _moments(decoder, router, rows):
    inside_BT1 = rows.inside_BT[..., None]
    count = inside_BT1.sum()

    def look(layer, sites, x_BTI):
        return {site: moments(layer.raw(site, x_BTI)) for site in sites if site in layer.mean}

    def moments(score_BTE):
        mean_E = jnp.where(inside_BT1, score_BTE, 0).sum((0, 1)) / count
        gap_BTE = jnp.where(inside_BT1, score_BTE - mean_E[None, None], 0)
        return mean_E, jnp.square(gap_BTE).sum((0, 1))

    seen = decoder.observe(look, *rows, adapters=router)
    return _Moments(count, *({site: pair[i] for site, pair in seen.items()} for i in range(2)))
