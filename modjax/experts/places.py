"""The site and layer of each module that an adapter file names."""

import functools
import pathlib
import re
from collections.abc import Collection, Mapping

from modjax.errors import InputError
from modjax.experts import foreign
from modjax.models.hf_names import MODULES, current

MOST_LAYERS = 1000  # a tiny file may name any layer, and every layer up to it takes memory
# Last parts of the paths of embeddings and output heads.
ENDS = {modules[part].rpartition(".")[2] for modules in MODULES.values() for part in ("embed", "head")}


def paths(family: str) -> dict[str, str]:
    """{site: path}, such as `model.layers.{i}.self_attn.q_proj` with `{i}` for the layer; {} for an unknown family."""
    inner = ("blocks.attn.", "blocks.mlp.")
    parts = MODULES.get(family, {}).items()
    return {part.removeprefix("blocks."): path for part, path in parts if part.startswith(inner)}


def places(family: str, modules: Collection[str], file: pathlib.Path) -> dict[str, tuple[str, int]]:
    """{module: (site, layer)}. Raises InputError naming file and module if the family has no such module."""
    found = {module: _place(family, module) for module in modules}
    for module, place in found.items():
        if place is None:
            raise InputError(f"{file}: {module!r} is not a linear map of a {family} block")
        if place[1] >= MOST_LAYERS:
            raise InputError(f"{file}: {module!r}: layer {place[1]}; expected at most {MOST_LAYERS} layers")
    return found


def family_of(modules: Mapping[pathlib.Path, Collection[str]]) -> str:
    """The first family that has all modules of all files. Raises InputError if there is none.

    Several families may have the same module names; each of them gives the same sites.
    """
    fitting = {file: _families(own, file) for file, own in modules.items()}
    common = [family for family in MODULES if all(family in own for own in fitting.values())]
    if not common:
        found = ", ".join(f"{file} ({own[0]})" for file, own in fitting.items())
        raise InputError(f"experts of different model families: {found}; expected one family")
    return common[0]


def _families(modules, file):
    unknown = {family: [module for module in modules if not _place(family, module)] for family in MODULES}
    nearest = min(unknown, key=lambda family: len(unknown[family]))
    if unknown[nearest]:
        for module in unknown[nearest]:
            check_inside(module, file)
        raise InputError(f"{file}: {_why_not(unknown[nearest], modules, nearest)}")
    return [family for family in MODULES if not unknown[family]]


def check_inside(module: str, file: pathlib.Path) -> None:
    """Raises InputError if a module is an embedding or an output head."""
    if module.rpartition(".")[2] in ENDS:
        raise InputError(
            f"{file}: {module!r} is an embedding or output head; modjax adapts linear maps of blocks alone. Train "
            "without it, or fold the adapter into its base with PEFT's merge_and_unload() and load that as a model"
        )


def _why_not(unknown, modules, nearest) -> str:
    """The error for a file with unknown modules; nearest: the family that has most of its modules."""
    if other := foreign.name_of(unknown):
        return f"{unknown[0]!r} looks like a module of {other}; supported families are {', '.join(MODULES)}"
    inner = [f"model.{module}" for module in unknown]
    if any(_place(family, module) for family in MODULES for module in inner):
        return f"{unknown[0]!r} belongs to a model without a language-modelling head; expected {inner[0]!r}"
    if len(unknown) < len(modules):
        return f"{unknown[0]!r} is not a linear map of a {nearest} block"
    return f"{unknown[0]!r} is a module of no supported family; expected one of {', '.join(MODULES)}"


def _place(family, module):
    for site, pattern in _patterns(family):
        if found := pattern.fullmatch(current(module)):
            return site, int(found[1])
    return None


@functools.cache
def _patterns(family):
    number = "(0|[1-9][0-9]{0,8})"
    return [(site, re.compile(number.join(map(re.escape, path.split("{i}"))))) for site, path in paths(family).items()]
