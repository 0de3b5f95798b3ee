"""The site and layer of each module that an adapter file names."""

import functools
import pathlib
import re
from collections.abc import Collection, Mapping

from modjax.errors import InputError
from modjax.models.hf_names import MODULES

MOST_LAYERS = 1000  # a tiny file may name any layer, and every layer up to it takes memory


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
        raise InputError(f"{file}: {unknown[nearest][0]!r} is not a linear map of a {nearest} block")
    return [family for family in MODULES if not unknown[family]]


def _place(family, module):
    for site, pattern in _patterns(family):
        if found := pattern.fullmatch(module):
            return site, int(found[1])
    return None


@functools.cache
def _patterns(family):
    number = "(0|[1-9][0-9]{0,8})"
    return [(site, re.compile(number.join(map(re.escape, path.split("{i}"))))) for site, path in paths(family).items()]
