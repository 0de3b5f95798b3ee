"""`modjax evaluate`: the base model, or a library under a router, scored task by task."""

from modjax.cli import build, session
from modjax.eval import Method, Score, evaluate, summary
from modjax.files import write_json

NEEDS = ("config", "workdir")  # flags that must be given
EXAMPLE = "modjax evaluate --config=configs/evaluate.py:quick,library=workdir/private/library --workdir=workdir/scores"


def run(config, workdir, flags) -> None:
    """Writes WORKDIR/scores.json and prints the means in distribution and on held-out tasks."""
    folder = session.enter(workdir, config)
    tasks = build.tasks(config)
    model = build.model(config)
    method = Method("base")
    if config.library:
        library = build.library(config)
        method = Method(config.router.name, library, build.router(config, library, model))
    scores, seconds = evaluate(model, method, tasks, **config.evaluate)
    write_json(folder / "scores.json", {"method": method.name, **as_json(scores, seconds)})
    for part, names in (("in distribution", tasks.training), ("held out", tasks.held_out)):
        if means := summary(scores, list(names)):
            print(
                f"{method.name}, {part}: loss {means['loss']:.3f} nats, exact match {means['exact_match']:.1%}, "
                f"Rouge-L {means['rouge_l']:.1%}, {means['examples']} examples"
            )


def as_json(scores: dict[str, Score], seconds: float) -> dict:
    """Every task's score, and the seconds that all took."""
    return {"seconds": seconds, "tasks": {name: score.as_json() for name, score in scores.items()}}


def from_json(found: dict) -> dict[str, Score]:
    """The scores that `as_json` gave."""
    return {name: Score.from_json(score) for name, score in found["tasks"].items()}
