"""Experts whose training failed (`ExpertInfo.failed`) are left out of what is made of a library, unless asked for."""

import dataclasses
import warnings

import numpy as np

from modjax import arguments
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary


def left_out(library: Library | PagedLibrary, failed: bool = False) -> tuple[int, ...]:
    """The indices of the experts whose training failed; none with failed=True.

    Warns, naming them. Raises InputError if no expert would be left.
    """
    arguments.instance("library", library, Library | PagedLibrary)
    found = () if arguments.flag("failed", failed) else tuple(i for i, info in enumerate(library.infos) if info.failed)
    if not found:
        return ()
    steps = ", ".join(f"{library.names[i]} (at step {library.infos[i].failed})" for i in found)
    if len(found) == len(library):
        raise InputError(f"training failed for all experts: {steps}; expected at least one that did not fail")
    warnings.warn(f"experts whose training failed are left out: {steps}", stacklevel=3)
    return found


def without_failed(library: Library) -> Library:
    """The library without the experts whose training failed; see `left_out`."""
    found = left_out(library)
    return library[[i for i in range(len(library)) if i not in found]] if found else library


def silenced(library: Library, failed: bool = False) -> Library:
    """The library with scales of 0 for experts whose training failed: their updates are 0, as if never trained."""
    found = left_out(library, failed)
    if not found:
        return library
    kept_1E = np.ones((1, len(library)), np.float32)
    kept_1E[:, found] = 0
    loras = {site: lora._replace(scale=lora.scale * kept_1E) for site, lora in library.loras.items()}
    return dataclasses.replace(library, loras=loras)
