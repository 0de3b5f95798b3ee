"""Factors of experts given as arrays: checked, and converted to float32."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import items, refused, text
from modjax.errors import InputError

PAIR = "a pair of arrays (a[L,E,R,I], b[L,E,R,O])"


def given(sites: Any) -> dict[str, list[jax.Array]]:
    """{site: [a float32[L,E,R,I], b float32[L,E,R,O]]} of {site: (a, b)}, arrays of any kind.

    Raises InputError unless the arrays are finite numbers of these shapes.
    """
    if not isinstance(sites, Mapping) or not sites:
        raise refused("sites", sites, f"at least one site, as {{site: {PAIR}}}")
    pairs = {text("a site", site): _pair(site, pair) for site, pair in sites.items()}
    sizes(pairs)
    return pairs


def sizes(pairs: Mapping[str, Sequence[jax.Array]]) -> tuple[int, int, int]:
    """L, E, R of {site: (a, b)}. Raises InputError unless they fit each other at all sites."""
    first = next(iter(pairs.values()))[1].shape[:3]
    for site, (a, b) in pairs.items():
        once = (b.shape[0], 1, *b.shape[2:3]) if b.ndim else ()
        if a.ndim != 4 or b.ndim != 4 or a.shape[:3] not in (b.shape[:3], once) or b.shape[:3] != first:
            raise InputError(
                f"site {site}: a {a.shape} and b {b.shape}; expected a[L,E,R,I], or a[L,1,R,I] for one A, and "
                f"b[L,E,R,O] with L, E, R = {first}"
            )
        if 0 in (*a.shape, *b.shape):
            raise InputError(f"site {site}: a {a.shape} and b {b.shape}; expected at least one element along each axis")
    return first


def _pair(site, pair):
    pair = items(f"site {site}", pair, PAIR)
    if len(pair) != 2:
        raise refused(f"site {site}", pair, PAIR)
    return [_factor(f"site {site}, {side}", factor) for side, factor in zip("ab", pair, strict=True)]


def _factor(name, factor):
    try:
        array = factor if isinstance(factor, jax.Array) else np.asarray(factor)
    except (TypeError, ValueError) as error:
        raise refused(name, factor, "an array of numbers") from error
    if not (jnp.issubdtype(array.dtype, np.floating) or jnp.issubdtype(array.dtype, np.integer)):
        raise refused(name, factor, "an array of real numbers")
    with np.errstate(over="ignore"):
        array = jnp.asarray(array, jnp.float32)
    if not jnp.isfinite(array).all():
        raise InputError(f"{name}: holds values that are not finite in float32; expected finite numbers")
    return array
