"""Numbers as text: fixed decimals, and an en dash for what was not measured."""

import math
from typing import Any

from modjax.errors import InputError

DASH = "–"


def finite(value: Any) -> float | None:
    """The value as a float, or None where it is None, NaN or infinite. Raises InputError where it is not a number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"results hold {value!r} in place of a number; expected a number or null") from None
    return number if math.isfinite(number) else None


def precise(value: Any) -> str:
    """A number to three decimals, such as a loss in nats per target token; without a sign if they are all 0."""
    number = finite(value)
    return DASH if number is None else f"{number:z.3f}"


def percent(value: Any) -> str:
    """A fraction in [0, 1] as a percentage to one decimal, without the sign."""
    number = finite(value)
    return DASH if number is None else f"{100 * number:.1f}"


def seconds(value: Any) -> str:
    """Seconds, to one decimal below 1000 and none from there on."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number:.1f}" if number < 1000 else f"{number:,.0f}"


def milliseconds(value: Any) -> str:
    """Seconds as milliseconds, to two decimals below 100 ms and none from there on."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{1000 * number:.2f}" if number < 0.1 else f"{1000 * number:,.0f}"


def megabytes(value: Any) -> str:
    """Bytes as megabytes (10^6), to one decimal below 100 MB and none from there on."""
    number = finite(value)
    if number is None:
        return DASH
    return f"{number / 1e6:.1f}" if number < 1e8 else f"{number / 1e6:,.0f}"


def duration(value: Any) -> str:
    """Seconds in one or two units: `42 s`, `3 min 20 s`, `2 h 05 min`."""
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
    """A number to two decimals, such as the adjusted Rand index."""
    number = finite(value)
    return DASH if number is None else f"{number:.2f}"
