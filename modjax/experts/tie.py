"""Tied sites: several sites with the same input share one A, and have their own B.

The reference code of arXiv 2405.11157 trains q, k and v of Phi-2 in this way, and Arrow can give them one prototype.
During training a tied A is stored once, at the first of its sites; a library, like PEFT, stores it at each site.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modjax.arguments import items, texts
from modjax.errors import InputError
from modjax.ops.lora import Factors, LoRA

Tie = Sequence[Sequence[str]]  # groups of sites


def firsts(tie: Tie) -> dict[str, str]:
    """{tied site: the first of its group}."""
    return {site: sites[0] for sites in tie for site in sites}


def once(factors: Mapping[str, Factors], tie: Tie) -> dict[str, Factors]:
    """The factors with A only at the first site of each group, and None at its other sites."""
    first = firsts(tie)
    return {site: own if first.get(site, site) == site else own._replace(a=None) for site, own in factors.items()}


def everywhere(factors: Mapping[str, Factors], tie: Tie) -> dict[str, Factors]:
    """The factors with the first site's A at all sites of its group."""
    first = firsts(tie)
    return {site: own._replace(a=factors[first.get(site, site)].a) for site, own in factors.items()}


def checked_tie(tie: Tie) -> tuple[tuple[str, ...], ...]:
    """The groups as tuples. Raises InputError for anything but lists of names of sites."""
    return tuple(texts("an item of tie", sites) for sites in items("tie", tie, "a list of groups of sites"))


def check_sites(tie: Tie, known: Iterable[str]) -> None:
    """Raises InputError unless each tied site is among `known`, and is tied once."""
    named = [site for sites in tie for site in sites]
    for site in named:
        if site not in known:
            raise InputError(f"tie: unknown site {site!r}; expected one of {', '.join(known)}")
        if named.count(site) > 1:
            raise InputError(f"tie: {site!r} is tied {named.count(site)} times; expected at most once")


def check_widths(tie: Tie, widths: Mapping[str, int]) -> None:
    """Raises InputError unless the sites of each group have inputs of equal width."""
    for sites in tie:
        if len({widths[site] for site in sites}) > 1:
            wide = ", ".join(f"{site} {widths[site]}" for site in sites)
            raise InputError(f"tie: input widths differ ({wide}); expected sites with the same input")


def check_factors(tie: Tie, loras: Mapping[str, LoRA | Factors]) -> None:
    """Raises InputError unless the sites of each group have equal A."""
    for site, first in firsts(tie).items():
        if not np.array_equal(loras[site].a, loras[first].a):
            raise InputError(f"tie: {site} and {first} have different A; expected the same A at tied sites")
