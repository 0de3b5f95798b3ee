"""Epochs: how many steps a member takes over its rows, and after which of them it is validated.

A member reads its rows in a stream of epochs without gaps, `batch` rows a step; see `modjax.data.loader.batches`. So
after s steps it has done s * batch / rows epochs, also where a step holds more rows than the member has.
"""

import math
from fractions import Fraction

from modjax.errors import InputError
from modjax.train.settings import MOST, Settings


def steps(settings: Settings, n_rows: int) -> int:
    """The steps of a member with this number of rows: the fewest that read `epochs` times as many.

    Raises InputError for more than can be counted.
    """
    if not settings.epochs:
        return settings.steps
    read = Fraction(repr(settings.epochs)) * n_rows  # exact: 0.1 epochs of 30 rows are 3
    found = math.ceil(read / settings.batch)
    if found > MOST:
        raise InputError(f"epochs={settings.epochs:g}: {found} steps over {n_rows} rows; expected at most {MOST} steps")
    return found


def is_due(settings: Settings, step: int, n_rows: int) -> bool:
    """Whether a member is validated after its step: with epochs, after the one in which the epoch ends."""
    every = settings.evaluate_every
    if not every or not settings.epochs:
        return bool(every) and step % every == 0
    before, now = ((taken * settings.batch) // (every * n_rows) for taken in (step - 1, step))
    return now > before
