"""What Arrow's routing depends on: how long experts were trained, and their rank.

    python benchmarks/arrow_training.py --workdir=workdir/arrow_training --out=benchmarks/results/NAME.json

Private experts of eight tasks of the demo are trained anew for each number of steps and rank, otherwise with the demo's
settings. For each library: the loss on test examples under the mean of the experts, Arrow and the oracle; the share of
prompts for which the task's own expert has the most weight, in the best layer and site too; and how much of an expert's
prototype lies in the rows of A at the start, which all experts have in common. A run that was stopped goes on.
"""

import pathlib

import jax
import measuring
import numpy as np

import modjax
from modjax import routing
from modjax.data.tasks import Tasks
from modjax.eval import Method, Sample, analyse, evaluate, summary
from modjax.eval.analysis import Analysis
from modjax.experts.library import Library
from modjax.models import local
from modjax.routing.prototypes import prototypes_of
from modjax.train.lora import init_factors
from modjax.train.settings import Settings

PACKAGES = ("flax", "numpy")
TASKS = (
    "dates_from_french", "words_plural", "words_gerund", "lists_backwards", "lists_ends", "records_order",
    "numbers_total", "numbers_larger",
)  # fmt: skip
ARMS = ((8, 4), (32, 4), (128, 4), (32, 16))  # steps, rank
ARROWS = {"Arrow, top 1": 1, "Arrow, top 4": 4, "Arrow, all": -1}  # top_k
SETTINGS = {"length": 128, "batch": 1, "learning_rate": 4e-3, "dropout": 0.0, "system": ""}


def arm(model: modjax.Model, tasks: Tasks, folder: pathlib.Path, steps: int, rank: int, examples: int) -> dict:
    """The figures of one library; its expert's alpha is 4 times the rank."""
    settings = SETTINGS | {"steps": steps, "rank": rank, "alpha": 4.0 * rank}
    library = modjax.train_library(model, tasks, workdir=folder / f"steps-{steps}-rank-{rank}", **settings)
    sample = Sample(examples=examples, length=SETTINGS["length"], system="")
    arrows = {name: routing.arrow(library, top_k=top_k) for name, top_k in ARROWS.items()}
    routers = {"mean": routing.uniform(library), **arrows, "oracle": routing.oracle(library)}
    losses = {name: _loss(model, tasks, library, router, sample) for name, router in routers.items()}
    gap, best = losses["mean"] - losses["oracle"], min(losses[name] for name in ARROWS)
    found = analyse(model, Method("arrow", library, arrows["Arrow, top 1"]), tasks, sample)
    return {
        "steps": steps,
        "rank": rank,
        "loss": losses,
        "share_of_gap": (losses["mean"] - best) / gap,
        "prompts_right": found.accuracy,
        **_by_place(found),
        "prototype_in_first_a": _in_first_a(model, library, Settings(**settings)),
    }


def _loss(model, tasks, library, router, sample) -> float:
    return summary(evaluate(model, tasks, library, router, sample, 1, progress=False), list(tasks))["loss"]


def _by_place(found: Analysis) -> dict:
    """The share of prompts whose own expert has the most weight at one layer and site: the mean, and the best place."""
    layer, site = np.unravel_index(found.examples_right_LS.argmax(), found.examples_right_LS.shape)
    best = {"layer": int(layer), "site": found.sites[site], "prompts_right": float(found.examples_right_LS.max())}
    return {"prompts_right_per_place": float(found.examples_right_LS.mean()), "best_place": best}


def _in_first_a(model: modjax.Model, library: Library, settings: Settings) -> float:
    """The squared length of a prototype's part in the rows of A at the start, the mean over experts, layers, sites."""
    first = jax.jit(lambda: init_factors(jax.random.key(settings.seed), 1, model.config, settings))()
    shares = []
    for site, prototype_LEI in prototypes_of(library).items():
        basis_LIR = np.linalg.qr(np.float64(first[site].a[:, 0]).transpose(0, 2, 1))[0]
        inside_LER = np.einsum("lei,lir->ler", np.float64(prototype_LEI), basis_LIR)
        shares.append((inside_LER**2).sum(axis=-1).mean())
    return float(np.mean(shares))


def compared(model: modjax.Model, tasks: Tasks, folder: pathlib.Path, arms, examples: int) -> dict:
    """The figures of all libraries, and of the base model."""
    sample = Sample(examples=examples, length=SETTINGS["length"], system="")
    base = _loss(model, tasks, None, None, sample)
    return {
        "tasks": list(tasks),
        "base": base,
        "libraries": [arm(model, tasks, folder, *one, examples) for one in arms],
    }


def arguments(argv: list[str] | None = None):
    parser = measuring.parser(__doc__, repeats=None)
    parser.add_argument(
        "--workdir", type=pathlib.Path, default="workdir/arrow_training", help="folder of the libraries"
    )
    parser.add_argument("--model", default=local.EMBEDDED)
    parser.add_argument("--examples", type=int, default=16, help="test examples of each task")
    return parser.parse_args(argv)


def main() -> None:
    args = arguments()
    names, arms, examples = (TASKS[:2], ((2, 2), (4, 2)), 2) if args.small else (TASKS, ARMS, args.examples)
    model, tasks = modjax.load(args.model), modjax.data.load("open48", only=names)
    measuring.report(compared(model, tasks, args.workdir, arms, examples), PACKAGES, args.out)


if __name__ == "__main__":
    main()
