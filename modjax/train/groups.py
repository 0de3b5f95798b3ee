"""Groups of tasks, {expert: [task, ...]}: the tasks that each expert is trained on."""

import pathlib
from collections.abc import Iterable

from modjax.errors import InputError
from modjax.files import read_json_object

Groups = dict[str, tuple[str, ...]]


def private(tasks: Iterable[str]) -> Groups:
    """One expert per task, named after it."""
    return {name: (name,) for name in tasks}


def shared(tasks: Iterable[str]) -> Groups:
    """One expert of all tasks."""
    return {"shared": tuple(tasks)}


def groups_of(kind: str, tasks: Iterable[str]) -> Groups:
    """The groups that a config names: "private", "shared", or the clusters.json that `modjax cluster` wrote.

    Raises InputError for anything else.
    """
    if kind == "private":
        return private(tasks)
    if kind == "shared":
        return shared(tasks)
    if not pathlib.Path(kind).is_file():
        raise InputError(f"groups = {kind!r}; expected 'private', 'shared' or the path of a clusters.json")
    found = read_json_object(kind).get("groups")
    if not isinstance(found, dict):
        raise InputError(f"{kind}: has no 'groups'; expected a file that `modjax cluster` wrote")
    return found
