"""`modjax train`: a library of experts, one a task, one a cluster, or one for all."""

import pathlib

from modjax.cli import pieces, session
from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.parallel.distributed import is_writer
from modjax.train.loop import train_library


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library; metrics.jsonl and checkpoints/ on the way."""
    folder = session.enter(workdir, config)
    if (folder / "library").exists():
        print(f"{folder / 'library'} is complete; nothing to do")
        return
    tasks = pieces.tasks(config).training
    library = train_library(pieces.model(config), tasks, groups(config.groups, tasks), folder, **config.train.to_dict())
    if is_writer():
        library.save(folder / "library")
        print(f"{folder / 'library'}: {library}")


def groups(kind: str, tasks) -> dict[str, tuple[str, ...]]:
    """{expert: tasks} for "private", "shared", or the clusters.json that `modjax cluster` wrote."""
    if kind == "private":
        return {name: (name,) for name in tasks}
    if kind == "shared":
        return {"shared": tuple(tasks)}
    if not pathlib.Path(kind).is_file():
        raise InputError(f"config.groups = {kind!r}; expected 'private', 'shared' or a clusters.json")
    found = read_json_object(kind).get("groups")
    if not isinstance(found, dict):
        raise InputError(f"{kind}: has no 'groups'; expected what `modjax cluster` writes")
    return found
