"""Transforms of a library by name: the merges, and GenKnowSub."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from modjax.cli.arguments import called
from modjax.errors import InputError
from modjax.experts import merge
from modjax.experts.genknowsub import genknowsub
from modjax.experts.library import Library

MERGES = {name: getattr(merge, name) for name in merge.__all__ if inspect.isfunction(getattr(merge, name))}
TRANSFORMS = MERGES | {"genknowsub": genknowsub}


def check(name: Any, known: Iterable[str], where: str) -> None:
    """Raises InputError unless the transform is one of these; `where` is the key that names it."""
    if name not in known:
        raise InputError(f"{where} = {name!r}; expected one of {', '.join(known)}")


def make(name: str, library: Library, options: Mapping[str, Any], general: Library | None = None) -> Library:
    """The library that comes of a transform: one expert of a merge, as many as before of "genknowsub".

    Args:
      options: its arguments beside libraries.
      general: the experts that "genknowsub" subtracts.

    Raises InputError for options that it does not have, that it lacks, or that cannot be.
    """
    libraries = (library,)
    if name == "genknowsub":
        if general is None:
            raise InputError("genknowsub: there are no general experts to subtract; expected a library of them")
        libraries = (library, general)
    return called(name, TRANSFORMS[name], *libraries, **options)
