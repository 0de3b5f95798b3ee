"""A model with a library and a router, of the words of another program's command line."""

from collections.abc import Mapping
from typing import Any

from modjax import routing
from modjax.errors import InputError, suggestion
from modjax.experts.library import Library
from modjax.model import Model, load
from modjax.routing.base import Router, load_router

PARTS = ("pretrained", "library", "router")


def parts(names: Mapping[str, Any]) -> tuple[Model, Library | None, Router | None]:
    """The model, library and router of their names.

    Args:
      names: `pretrained`, a name for `modjax.load`; `library`, a folder; `router`, the file of a saved router, or the
        function of `modjax.routing` that makes one of the library alone.

    Raises InputError without a name of the model, and for names of nothing.
    """
    if "pretrained" not in names:
        raise InputError("no pretrained among the arguments; expected the name of a model, as for modjax.load")
    library = Library.load(names["library"]) if "library" in names else None
    router = _router(names["router"], library) if "router" in names else None
    return load(names["pretrained"]), library, router


def _router(name: str, library: Library | None) -> Router:
    """The router in a file, or that of a function of `modjax.routing`."""
    if library is None:
        raise InputError(f"router={name!r} without a library; expected library, the folder of one")
    if name.endswith(".safetensors"):
        return load_router(name)
    made = getattr(routing, name, None) if name in routing.__all__ and name.islower() else None
    if made is None:
        known = [one for one in routing.__all__ if one.islower()]
        raise InputError(f"router={name!r}; {suggestion(name, known)}")
    try:
        return made(library)
    except TypeError as error:
        raise InputError(f"router={name!r} needs more than a library; expected the file of a saved router") from error
