"""LoraHub (arXiv 2307.13269): experts composed for a new task by a search without gradients.

    A = sum_e w_e A_e,   B = sum_e w_e s_e B_e,   w in [-1.5, 1.5]^E from 0 on
    minimising   loss of the task's examples + 0.05 mean_e |w_e|

The base model and the library stay in memory and the weights are an argument: one compiled program judges every
candidate, and those of all tasks whose examples have equal padded lengths. Beside the origin the search sees no more
than `budget` candidates, so that a handful of forward passes is all it costs.
"""

import dataclasses
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from modjax import merge
from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.search import Found, search
from modjax.adapt.shots import few
from modjax.data.loader import key_of
from modjax.data.tasks import Tasks
from modjax.data.tokenize import TooLong, encode
from modjax.errors import InputError
from modjax.eval.likelihood import target_loss
from modjax.experts.library import Library, concatenate
from modjax.files import read_json, write_json
from modjax.model import Model
from modjax.progress import each
from modjax.routing.base import Bound
from modjax.routing.fixed import Fixed


def lorahub(
    model: Model,
    library: Library,
    tasks: Tasks,
    retrieved: Retrieved | None = None,
    budget: int = 40,
    bound: float = 1.5,
    penalty: float = 0.05,
    batch: int = 8,
    length: int = 2048,
    system: str | None = None,
    too_long: TooLong = "error",
    seed: int = 0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
) -> Library:
    """Searches each new task's weights over the library, and composes its expert by the best that were seen.

    Args:
      model: what `modjax.load` returns; nothing of it or of the library is changed.
      library: E experts of this model.
      tasks: the new tasks, each learned from its split "train" alone; see `few`.
      retrieved: {task: its experts}, from `retrieve`; by default all.
      budget: evaluations of the loss a task, that of w = 0 (the base model) among them.
      bound, penalty: of the weights, as above.
      batch: examples side by side; no weight depends on it but for rounding.
      length, system, too_long: of the examples, as in training.
      seed: of the search; every task draws from its own name.
      workdir: where lorahub.json keeps each task's search, so that a run that was killed repeats none of them.

    Returns:
      One expert a task of the library's rank and scale; `scores` of its ExpertInfo has the objective at the start and
      at the end. It never ends above its start.

    Raises InputError for experts, tasks and settings that do not fit, and where nevergrad is not installed.
    """
    model.check(library)
    if model.tokenizer is None:
        raise InputError(f"{model.name}: the checkpoint has no tokenizer, so there are no tokens to learn from")
    tasks = few(tasks)
    chosen, kept = retrieved_from(library, tasks, retrieved), _Kept(workdir)
    method = {"method": "lorahub", "budget": budget, "bound": bound, "penalty": penalty, "seed": seed}
    arrays = _digest(library.loras) if workdir else ""  # read off the device once, not for each task
    composed = []
    for name, task in each(tasks.items(), "task", progress):
        own = library if retrieved is None else library[chosen[name]]
        encoded = encode(model.tokenizer, task, task.split("train"), length, system, too_long)
        made_of = method | {"experts": list(own.names), "library": arrays, "examples": _digest(encoded)}
        found = kept.get(name, made_of)
        if found is None:
            objective = _objective(model, own, encoded, penalty, batch)
            found = kept.put(name, made_of, search(objective, len(own), budget, bound, key_of(name, seed)))
        composed.append(_composed(own, name, found, method))
    return concatenate(composed)


def _objective(model, own: Library, encoded, penalty, batch):
    """What a candidate is judged by; model and library are arguments of one program, as the weights are."""

    def value(weights_E):
        bound = Bound(own.loras, _fixed(own, weights_E))
        totals, counts = target_loss(model, encoded, bound, batch=batch)
        return totals.sum() / counts.sum() + penalty * np.abs(weights_E).mean()

    return value


def _fixed(own, weights_E) -> Fixed:
    """The router that gives each expert its weight at every layer and site."""
    weights_LE = jnp.broadcast_to(jnp.asarray(weights_E, jnp.float32)[None], (own.layers, len(own)))
    return Fixed(dict.fromkeys(own.loras, weights_LE), "parameters")


def _digest(tree) -> str:
    """Of the bytes of all arrays."""
    sums = [zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)]
    return f"{zlib.crc32(np.asarray(sums, np.uint32).tobytes()):08x}"


class _Kept:
    """The searches that are done, in lorahub.json; without a folder nothing is kept."""

    def __init__(self, workdir):
        self.path = None if workdir is None else pathlib.Path(workdir) / "lorahub.json"
        self.searches = read_json(self.path) if self.path and self.path.exists() else {}

    def get(self, task, made_of) -> Found | None:
        one = self.searches.get(task)
        return Found(one["best"], one["values"]) if one and one.get("made_of") == made_of else None

    def put(self, task, made_of, found: Found) -> Found:
        self.searches[task] = {"made_of": made_of, **found._asdict()}
        if self.path:
            write_json(self.path, self.searches)
        return found


def _composed(own, task, found, method) -> Library:
    summed = merge.weighted(own, found.best, "factors", name=task)
    training = method | {key: value for key, value in summed.infos[0].training if key in ("experts", "weights")}
    scores = {"start_objective": found.values[0], "objective": min(found.values)}
    info = dataclasses.replace(
        summed.infos[0], tasks=(task,), training=tuple(training.items()), scores=tuple(scores.items())
    )
    return dataclasses.replace(summed, infos=(info,))
