"""`modjax train`: experts, one per task, per cluster or for all tasks; skills that tasks share; or all weights."""

from modjax.cli import build, session
from modjax.errors import InputError, suggestion
from modjax.parallel.distributed import from_first
from modjax.train.full import train_full
from modjax.train.groups import groups_of
from modjax.train.lora import train_library
from modjax.train.poly import train_poly

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax train --config=configs/private.py:quick --workdir=workdir/private"
MADE = {"lora": "library", "poly": "library", "full": "model"}  # the result of each recipe in the working folder


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, or WORKDIR/model for recipe="full"; metrics.jsonl and checkpoints/ during training."""
    if config.recipe not in MADE:
        raise InputError(f"config.recipe: unknown recipe {config.recipe!r}; {suggestion(config.recipe, MADE)}")
    folder = session.enter(workdir, config)
    path = folder / MADE[config.recipe]
    if from_first(path.exists):
        print(f"{path} is complete; nothing to do")
        return
    made = TRAINERS[config.recipe](config, folder)
    from_first(lambda: made.save(path))
    print(f"{path}: {made if config.recipe != 'full' else f'{made.name}, fine-tuned'}")


def _lora(config, folder):
    tasks = build.tasks(config).training
    groups = groups_of(config.groups, tasks)
    return train_library(build.model(config), tasks, groups, folder, **config.train.to_dict())


def _poly(config, folder):
    """The skills; their router is saved first, because the library marks the folder as complete."""
    tasks = build.tasks(config).training
    library, router = train_poly(build.model(config), tasks, workdir=folder, **config.poly, **config.train.to_dict())
    from_first(lambda: router.save(folder / "router.safetensors"))
    return library


def _full(config, folder):
    return train_full(build.model(config), build.tasks(config).training, folder, **config.train.to_dict())


TRAINERS = {"lora": _lora, "poly": _poly, "full": _full}
