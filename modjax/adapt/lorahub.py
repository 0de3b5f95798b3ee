"""LoraHub (arXiv 2307.13269): experts composed for a new task by a search without gradients.

    A = sum_e w_e A_e,   B = sum_e w_e s_e B_e,   w in [-bound, bound]^E
    w minimises   loss of the task's examples + penalty * mean_e |w_e|,   by a search that starts at 0

The weights are an argument of the compiled program that computes the loss, as the base model and the library are. So
one program evaluates all candidates of all tasks whose examples have the same padded lengths, and a task costs at
most `budget` forward passes over its examples.
"""

import dataclasses
import pathlib
from typing import TypedDict, Unpack, get_args

import jax.numpy as jnp
import numpy as np

from modjax import merge
from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.search import Found, search
from modjax.adapt.shots import few
from modjax.arguments import check_fields, choice, number, optional, seed, text, whole
from modjax.claim import claim
from modjax.data import inputs
from modjax.data.loader import key_of
from modjax.data.tasks import Tasks
from modjax.data.tokenize import TooLong
from modjax.eval.likelihood import target_loss
from modjax.experts.library import Library, concatenate
from modjax.files import read_json, write_json
from modjax.model import Model
from modjax.parallel import distributed
from modjax.progress import each
from modjax.routing.base import Bound
from modjax.routing.fixed import Fixed


@dataclasses.dataclass(frozen=True)
class LoraHubSettings:
    """The settings of the search. The first three defaults are the paper's."""

    budget: int = 40  # evaluations of the loss per task, including that of w = 0, the base model
    bound: float = 1.5  # largest absolute weight of an expert
    penalty: float = 0.05  # factor of mean_e |w_e| in the objective
    batch: int = 8  # examples computed at once; weights depend on it only by rounding
    length: int = 2048  # the most tokens of an example
    system: str | None = None  # system message of each prompt; None leaves it to the chat template
    too_long: TooLong = "error"  # for examples above `length`: "error", or "truncate", which cuts prompts on the left
    seed: int = 0  # seed of the search, combined with the name of each task

    def __post_init__(self):
        check_fields(self, ("budget", "batch", "length"), whole, least=1)
        check_fields(self, ("bound",), number, above=0)
        check_fields(self, ("penalty",), number, least=0)
        check_fields(self, ("system",), optional(text))
        check_fields(self, ("too_long",), choice, get_args(TooLong))
        check_fields(self, ("seed",), seed)


class LoraHubFields(TypedDict, total=False):
    """The fields of `LoraHubSettings` as keyword arguments: the type of `**settings` in `lorahub`."""

    budget: int
    bound: float
    penalty: float
    batch: int
    length: int
    system: str | None
    too_long: TooLong
    seed: int


def lorahub(
    model: Model,
    library: Library,
    tasks: Tasks,
    retrieved: Retrieved | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[LoraHubFields],
) -> Library:
    """Searches for the weights of each new task over the library, and composes its expert with the best ones found.

    Args:
      model: from `modjax.load`; it is not changed, nor is the library.
      library: E experts of this model.
      tasks: the new tasks, each learned only from its split "train"; see `few`.
      retrieved: {task: its experts}, from `retrieve`; by default all experts of the library for each task, without
        those whose training failed.
      workdir: the folder for lorahub.json, which keeps the search of each finished task; a run that was killed does not
        repeat these. Its inputs.json ties it to what the search depends on.
      settings: the fields of `LoraHubSettings`, such as budget, bound, penalty and seed.

    Returns:
      One expert per task, of the library's rank and scale; `scores` of its ExpertInfo has the objective at the start
      and at the end, which is never above the start.

    Raises InputError for experts, tasks and settings that do not fit, for the workdir of another search, and if
    nevergrad is not installed.
    """
    settings = LoraHubSettings(**settings)
    model.check(library)
    tasks = few(tasks)
    chosen, tokens = retrieved_from(library, tasks, retrieved), (settings.length, settings.system, settings.too_long)
    encoded = {name: inputs.examples(model, task, task.split("train"), *tokens) for name, task in tasks.items()}
    kept = _Kept(workdir and pathlib.Path(workdir), lambda: _made_of(model, library, tasks, chosen, settings))
    recorded = {name: getattr(settings, name) for name in ("budget", "bound", "penalty", "seed")}
    method = {"method": "lorahub", **recorded}
    composed = []
    for name in each(tasks, "task", progress):
        own = library if chosen[name] == library.names else library[chosen[name]]
        found = kept.get(name)
        if found is None:
            objective = _objective(model, own, encoded[name], settings.penalty, settings.batch)
            limits = settings.budget, settings.bound
            found = kept.put(name, search(objective, len(own), *limits, key_of(name, settings.seed)))
        composed.append(_composed(own, name, found, method))
    return concatenate(composed)


def _objective(model, own: Library, encoded, penalty, batch):
    """The function of weights float64[E] that the search minimises."""

    def value(weights_E):
        bound = Bound(own.loras, _fixed(own, weights_E))
        totals, counts = target_loss(model, encoded, bound, batch=batch)
        return totals.sum() / counts.sum() + penalty * np.abs(weights_E).mean()

    return value


def _fixed(own, weights_E) -> Fixed:
    """The router that gives each expert its weight at every layer and site."""
    weights_LE = jnp.broadcast_to(jnp.asarray(weights_E, jnp.float32)[None], (own.layers, len(own)))
    return Fixed(dict.fromkeys(own.loras, weights_LE), "parameters")


def _made_of(model, library, tasks, chosen, settings):
    """All that the searches depend on, as plain data with digests."""
    return {
        "kind": "LoraHub",
        "settings": dataclasses.asdict(settings),
        "experts": {task: list(own) for task, own in chosen.items()},
        "tasks": tasks.fingerprints,
        "model": model.content,
        "library": library.fingerprint,
    }


class _Kept:
    """The finished searches, in lorahub.json; without a folder nothing is written."""

    def __init__(self, folder, made_of):
        self.path, self.searches = None, {}
        if folder:
            self.path, made = folder / "lorahub.json", made_of()
            distributed.from_first(lambda: claim(folder / "inputs.json", made, [self.path]))
            self.searches = distributed.from_first(lambda: read_json(self.path) if self.path.exists() else {})

    def get(self, task) -> Found | None:
        return Found(**self.searches[task]) if task in self.searches else None

    def put(self, task, found: Found) -> Found:
        self.searches[task] = found._asdict()
        if self.path:
            distributed.from_first(lambda: write_json(self.path, self.searches))
        return found


def _composed(own, task, found, method) -> Library:
    summed = merge.weighted(own, found.best, "factors", name=task)
    training = method | {key: value for key, value in summed.infos[0].training if key in ("experts", "weights")}
    scores = {"start_objective": found.values[0], "objective": min(found.values)}
    info = dataclasses.replace(
        summed.infos[0], tasks=(task,), training=tuple(training.items()), scores=tuple(scores.items())
    )
    return dataclasses.replace(summed, infos=(info,))
