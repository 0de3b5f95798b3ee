"""Poly, Poly-Z and MHR on new tasks (arXiv 2202.13914, 2211.03831): learned weights over a library's experts.

    w = sigmoid(Z) / sum_e sigmoid(Z_e),   A = sum_e w_e A_e,   B = sum_e w_e s_e B_e

Poly learns each task's Z and fine-tunes its own copy of the experts; Poly-Z learns Z alone, and all tasks read the one
library; MHR has weights of their own for each of H equal blocks of a site's input and output. What comes out is one
LoRA of the library's rank a task.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import ExpertInfo, Library
from modjax.experts.tie import check_factors
from modjax.merge.result import scale_of
from modjax.ops.lora import Loras
from modjax.routing.poly import Poly, task_weights
from modjax.train.fit import Fitted, fit
from modjax.train.poly import PolyTraining, check_heads
from modjax.train.settings import Settings


def poly(
    model: Any,
    library: Library,
    tasks: Tasks,
    heads: int = 1,
    weights_only: bool = False,
    retrieved: Retrieved | None = None,
    router: Poly | None = None,
    weights_rate: float = 100.0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Learns each new task's weights over the experts, and its own copy of them, all tasks in lockstep.

    Args:
      model: what `modjax.load` returns.
      library: E experts of this model, or the skills of `train_poly`. It is not changed.
      tasks: the new tasks, held out of training or not; see `few`.
      heads: H; 1 is Poly, more is MHR, and must divide the input and output widths of all sites.
      weights_only: Poly-Z; the experts stay as they are.
      retrieved: {task: its experts}, from `retrieve`; by default all.
      router: what `train_poly` gave beside its skills: the weights begin at their mean over its tasks; without it at
        1 / E.
      weights_rate: the learning rate of Z over that of the experts; 0.1 over 1e-3 in the reference.
      workdir, progress, settings: as in `train_library`; rank, alpha and sites are the library's. With `patience` each
        task keeps its best arrays.

    Returns:
      One expert a task, named after it.

    Raises InputError for settings, tasks and experts that do not fit.
    """
    model.check(library)
    check_heads(model.config, library.sites, heads)
    tasks, scale = few(tasks), scale_of(library)
    settings = Settings(**(settings | {"rank": library.rank, "alpha": scale * library.rank, "sites": library.sites}))
    check_factors(settings.tie, library.loras)
    chosen = retrieved_from(library, tasks, retrieved)
    ids_TS = np.asarray([[library.names.index(expert) for expert in own] for own in chosen.values()])
    if retrieved is None:
        ids_TS = ids_TS[:1]  # all tasks read the same experts
    skills, scale_1TS = _skills(library, ids_TS), np.asarray(library.scale)[ids_TS][None]
    given = {
        "weights": np.broadcast_to(_start(router, library, heads, ids_TS), (1, len(tasks), heads, ids_TS.shape[1]))
    }
    if not weights_only:
        given["skills"] = jax.tree.map(lambda leaf: _copies(leaf, len(tasks)), skills)
    recipe = PolyTraining(given, scale_1TS, skills if weights_only else None, weights_rate, settings)
    fitted = fit(model, tasks, {name: (name,) for name in tasks}, recipe, settings, workdir, progress)
    weights_THS = np.asarray(task_weights(fitted.trained["weights"][0]))
    loras, scale_T = recipe.experts(fitted.trained, recipe.frozen)
    method = {"method": _name(heads, weights_only), "heads": heads, "weights_rate": weights_rate}
    infos = _infos(model, library, chosen, settings, fitted, method, weights_THS.mean(axis=1))
    return Library(loras, scale_T, infos)


def _name(heads, weights_only):
    return ("poly" if heads == 1 else "mhr") + ("_z" if weights_only else "")


def _skills(library, ids_TS) -> Loras:
    """{site: [L,T,S,R,X]}, the experts of each task."""
    shape_TS = (library.loras[library.sites[0]].a.shape[0], len(library))
    return jax.tree.map(
        lambda leaf: np.broadcast_to(np.asarray(leaf, np.float32), (*shape_TS, *leaf.shape[2:]))[:, ids_TS],
        library.loras,
    )


def _copies(leaf_LTSRX, n_tasks):
    return np.broadcast_to(leaf_LTSRX, (leaf_LTSRX.shape[0], n_tasks, *leaf_LTSRX.shape[2:]))


def _start(router, library, heads, ids_TS) -> np.ndarray:
    """Z float32[1,T,H,S] that gives the router's mean weights; they add up to 1, so their logits do."""
    if router is None:
        return np.zeros((1, len(ids_TS), heads, ids_TS.shape[1]), np.float32)
    mean_HE = np.asarray(router.weights, np.float64)[0].mean(axis=0)
    if mean_HE.shape != (heads, len(library)):
        raise InputError(
            f"router: weights of {mean_HE.shape[0]} heads over {mean_HE.shape[1]} skills; expected {heads} heads over "
            f"the library's {len(library)}"
        )
    open_HE = np.clip(mean_HE, 1e-6, 1 - 1e-6)
    return np.float32(np.log(open_HE / (1 - open_HE))[:, ids_TS].swapaxes(0, 1))[None]


def _infos(model, library, chosen, settings, fitted: Fitted, method, weights_TS) -> tuple[ExpertInfo, ...]:
    run = {"steps": fitted.steps, "learning_rate": settings.learning_rate, "seed": settings.seed}

    def one(task, experts, weights_S, scores):
        weighed = {"experts": ", ".join(experts), "weights": ", ".join(f"{weight:.6g}" for weight in weights_S)}
        return ExpertInfo(
            name=task,
            tasks=(task,),
            rank=library.rank,
            alpha=settings.alpha,
            base=model.name,
            family=model.config.family,
            fingerprint=model.fingerprint,
            training=tuple((method | run | weighed).items()),
            scores=scores,
        )

    return tuple(one(*each) for each in zip(chosen, chosen.values(), weights_TS, fitted.scores, strict=True))
