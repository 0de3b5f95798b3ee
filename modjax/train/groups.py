"""Groups of tasks, {expert: [task, ...]}: the tasks that each expert is trained on."""

import pathlib
from collections.abc import Iterable, Mapping

from modjax import arguments
from modjax.errors import InputError
from modjax.files import read_json_object

Groups = dict[str, tuple[str, ...]]


def private(tasks: Iterable[str]) -> Groups:
    """One expert per task, named after it."""
    return {name: (name,) for name in tasks}


def shared(tasks: Iterable[str]) -> Groups:
    """One expert of all tasks."""
    return {"shared": tuple(tasks)}


def checked_groups(groups: Mapping[str, Iterable[str]]) -> Groups:
    """The groups, with the tasks of each as a tuple.

    Raises InputError for anything but {expert: [task, ...]}, for no groups, and for a group without tasks.
    """
    if not isinstance(groups, Mapping) or not groups:
        raise arguments.refused("groups", groups, "at least one group of tasks, {expert: [task, ...]}")
    found = {}
    for name, own in groups.items():
        arguments.title("the name of a group", name)
        tasks = arguments.items(f"groups[{name!r}]", own, "a list of names of tasks")
        found[name] = tuple(arguments.text(f"groups[{name!r}]", task) for task in tasks)
        if not tasks or len(set(tasks)) < len(tasks):
            raise arguments.refused(f"groups[{name!r}]", own, "at least one task, each named once")
    return found


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
