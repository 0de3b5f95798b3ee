"""Numbers as a reader sees them: fixed decimals, and an en dash for what was not measured."""

import math
from typing import Any

from modjax.errors import InputError

DASH = "–"


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is None, NaN or infinite; InputError where it is no number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"results hold {value!r} in place of a number; expected a number or null") from None
    return number if math.isfinite(number) else None


def loss(value: Any) -> str:
    """Nats per target token, to three decimals."""
    number = finite(value)
    return DASH if number is None else f"{number:.3f}"


def percent(value: Any) -> str:
    """A fraction in [0, 1] as a percentage to one decimal, without the sign."""
    number = finite(value)
    return DASH if number is None else f"{100 * number:.1f}"


def seconds(value: Any) -> str:
    """Seconds, to one decimal below a thousand and none above."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number:.1f}" if number < 1000 else f"{number:,.0f}"


def milliseconds(value: Any) -> str:
    """Seconds as milliseconds, to two decimals below a hundred and none above."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{1000 * number:.2f}" if number < 0.1 else f"{1000 * number:,.0f}"


def megabytes(value: Any) -> str:
    """Bytes in units of a million, to one decimal below a hundred and none above."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number / 1e6:.1f}" if number < 1e8 else f"{number / 1e6:,.0f}"


def duration(value: Any) -> str:
    """Seconds in the two largest units that matter: `42 s`, `3 min 20 s`, `2 h 05 min`."""
    number = finite(value)
    if number is None:
        return DASH
    if number < 10:
        return f"{number:.1f} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def ratio(value: Any) -> str:
    """A plain number, such as the adjusted Rand index, to two decimals."""
    number = finite(value)
    return DASH if number is None else f"{number:.2f}"
