"""Names of experts: any text that is not empty, or taken from the path of a folder.

An adapter without a name is named after the last folder of its path whose name says something: after `math` for
runs/math/adapter and runs/math/checkpoint-500. Where several would get one name, each gets as much of its path as tells
them apart, such as `math/checkpoint-500`, or `french/math` and `german/math`.
"""

import collections
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from modjax.arguments import refused, text
from modjax.errors import InputError

_WORD = "(adapters?|lora|peft|models?|weights|checkpoints?|outputs?|results?|final|best|last|latest|ckpts?|snapshots?)"
_STEP = r"(checkpoint|ckpt|global|step|epoch|iter)[-_.=]?\d*[-_.=]?"
# Folder names that say nothing of an expert: these words, also joined; steps of training; the hashes of commits.
GENERIC = re.compile(rf"({_WORD}[-_.]?)+|(?=.*\d)({_STEP})+|[0-9a-f]{{40}}", re.IGNORECASE)


def check(field: str, name: Any) -> str:
    """A name: any text but the empty one. field: what it is called in the error."""
    if not text(field, name):
        raise refused(field, name, "a string of at least one character")
    return str(name)


def of_paths(paths: Sequence[pathlib.PurePath]) -> list[str]:
    """A name for each of these absolute paths, all different. Raises InputError for a path that is given twice."""
    for path, count in collections.Counter(paths).items():
        if count > 1:
            raise InputError(f"{path}: is given twice; expected different adapters")
    candidates = [_candidates(path.parts[1:] or ("root",)) for path in paths]
    found = [next(one) for one in candidates]
    while len(set(found)) < len(found):
        counts = collections.Counter(found)
        found = [next(candidates[i], name) if counts[name] > 1 else name for i, name in enumerate(found)]
    return found


def _candidates(parts: tuple[str, ...]) -> Iterator[str]:
    """Names for a path, each with more of it than the one before; the last is the whole path."""
    end = len(parts)
    while end > 1 and GENERIC.fullmatch(parts[end - 1]):
        end -= 1
    for start in range(end - 1, -1, -1):
        yield "/".join(parts[start:end])
        yield "/".join(parts[start:])
