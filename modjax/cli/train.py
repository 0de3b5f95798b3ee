"""`modjax train`: experts, one a task, one a cluster or one for all; skills that tasks share; or all weights."""

import pathlib

from modjax.cli import build, session
from modjax.errors import InputError
from modjax.files import read_json_object
from modjax.parallel.distributed import from_first, is_writer
from modjax.train.full import train_full
from modjax.train.lora import train_library
from modjax.train.poly import train_poly

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax train --config=configs/private.py:quick --workdir=workdir/private"
MADE = {"lora": "library", "poly": "library", "full": "model"}  # what each method leaves in the working folder


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, or WORKDIR/model for method="full"; metrics.jsonl and checkpoints/ on the way."""
    if config.method not in MADE:
        raise InputError(f"config.method = {config.method!r}; expected one of {', '.join(MADE)}")
    folder = session.enter(workdir, config)
    made = folder / MADE[config.method]
    if from_first(made.exists):
        print(f"{made} is complete; nothing to do")
        return
    model, tasks, settings = build.model(config), build.tasks(config).training, config.train.to_dict()
    if config.method == "full":
        _write(train_full(model, tasks, folder, **settings), made, f"{model.name}, fine-tuned")
        return
    if config.method == "poly":
        library, router = train_poly(model, tasks, workdir=folder, **config.poly, **settings)
        if is_writer():
            router.save(folder / "router.safetensors")  # before the library: that it is there says that all is
    else:
        library = train_library(model, tasks, groups(config.groups, tasks), folder, **settings)
    _write(library, made, library)


def _write(made, path, summary):
    if is_writer():
        made.save(path)
        print(f"{path}: {summary}")


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
