"""Sites that have one A: what they read is brought down to R numbers once, and each site brings them up by its own B.

So the reference code trains Phi-2's q, k and v (arXiv 2405.11157), and Arrow can give them one prototype. While it is
trained a tied A is held once, by the first of its sites; a library, like PEFT, has it at each.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from modjax.errors import InputError
from modjax.ops.lora import LoRA

Tie = Sequence[Sequence[str]]  # groups of sites


def firsts(tie: Tie) -> dict[str, str]:
    """{tied site: the first of its group}."""
    return {site: sites[0] for sites in tie for site in sites}


def once(loras: Mapping[str, LoRA], tie: Tie) -> dict[str, LoRA]:
    """The factors without A at all but the first site of each group."""
    first = firsts(tie)
    return {site: lora if first.get(site, site) == site else lora._replace(a=None) for site, lora in loras.items()}


def everywhere(loras: Mapping[str, LoRA], tie: Tie) -> dict[str, LoRA]:
    """The factors with the first site's A at all of its group."""
    first = firsts(tie)
    return {site: lora._replace(a=loras[first.get(site, site)].a) for site, lora in loras.items()}


def check_sites(tie: Tie, known: Iterable[str]) -> None:
    """Raises InputError unless each tied site is one of these, and tied once."""
    named = [site for sites in tie for site in sites]
    for site in named:
        if site not in known or named.count(site) > 1:
            raise InputError(
                f"tie: {site!r} is tied {named.count(site)} times; expected once, and one of {', '.join(known)}"
            )


def check_widths(tie: Tie, widths: Mapping[str, int]) -> None:
    """Raises InputError unless the sites of each group are equally wide."""
    for sites in tie:
        if len({widths[site] for site in sites}) > 1:
            wide = ", ".join(f"{site} {widths[site]}" for site in sites)
            raise InputError(f"tie: the inputs of {wide} differ in width; expected sites that read the same")


def check_factors(tie: Tie, loras: Mapping[str, LoRA]) -> None:
    """Raises InputError unless the sites of each group have one A."""
    for site, first in firsts(tie).items():
        if not np.array_equal(loras[site].a, loras[first].a):
            raise InputError(f"tie: the A of {site} is not that of {first}; only sites that share A can be tied")
