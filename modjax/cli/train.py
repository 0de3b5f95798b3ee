"""`modjax train`: experts, one per task, per cluster or for all tasks; skills that tasks share; or all weights."""

from modjax.cli import build, session
from modjax.errors import InputError, suggestion
from modjax.parallel.distributed import from_first
from modjax.studies import content
from modjax.train.full import train_full
from modjax.train.groups import groups_of
from modjax.train.lora import train_library
from modjax.train.poly import train_poly
from modjax.train.run import CHECKPOINTS

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax train --config=configs/private.py:quick --workdir=workdir/private"
MADE = {"lora": "library", "poly": "library", "full": "model"}  # the result of each recipe in the working folder


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/library, or WORKDIR/model for recipe="full"; metrics.jsonl and checkpoints/ during training."""
    if config.recipe not in MADE:
        raise InputError(f"config.recipe: unknown recipe {config.recipe!r}; {suggestion(config.recipe, MADE)}")
    folder = session.enter(workdir, config)
    path, model, tasks = folder / MADE[config.recipe], build.model(config), build.tasks(config).training
    groups = groups_of(config.groups, tasks)
    made_of = {"model": model.content, "groups": [[name, list(own)] for name, own in groups.items()]}
    session.bind(folder, content.of_tasks(tasks) | made_of, path.name, CHECKPOINTS)
    if from_first(path.exists):
        print(f"{path} is complete; nothing to do")
        return
    made = TRAINERS[config.recipe](config, model, tasks, groups, folder)
    from_first(lambda: made.save(path))
    print(f"{path}: {made if config.recipe != 'full' else f'{made.name}, fine-tuned'}")


def _lora(config, model, tasks, groups, folder):
    return train_library(model, tasks, groups, folder, **config.train.to_dict())


def _poly(config, model, tasks, _, folder):
    """The skills; their router is saved first, because the library marks the folder as complete."""
    library, router = train_poly(model, tasks, workdir=folder, **config.poly, **config.train.to_dict())
    from_first(lambda: router.save(folder / "router.safetensors"))
    return library


def _full(config, model, tasks, _, folder):
    return train_full(model, tasks, folder, **config.train.to_dict())


TRAINERS = {"lora": _lora, "poly": _poly, "full": _full}
