"""Poly, Poly-Z and MHR on new tasks (arXiv 2202.13914, 2211.03831): learned weights over a library's experts.

    w = sigmoid(Z) / sum_e sigmoid(Z_e),   A = sum_e w_e A_e,   B = sum_e w_e s_e B_e

Poly learns the Z of each task and fine-tunes its own copy of the experts; Poly-Z learns Z alone, and all tasks share
the library; MHR has separate weights for each of H equal blocks of a site's input and output. The result is one LoRA of
the library's rank per task.
"""

import pathlib
from typing import Unpack

import numpy as np

from modjax import arguments
from modjax.adapt.retrieval import Retrieved, retrieved_from
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.experts.tie import check_factors
from modjax.merge.result import scale_of
from modjax.model import Model
from modjax.ops.lora import Factors, LoRA, Loras
from modjax.routing.poly import Poly, task_weights
from modjax.train.fit import fit
from modjax.train.lora import expert_info
from modjax.train.poly import PolyTraining, checked_heads
from modjax.train.settings import Settings, SettingsFields


def poly(
    model: Model,
    library: Library,
    tasks: Tasks,
    heads: int = 1,
    weights_only: bool = False,
    retrieved: Retrieved | None = None,
    router: Poly | None = None,
    weights_rate: float = 100.0,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> Library:
    """Learns the weights of each new task over the experts, and its own copy of them, all tasks in lockstep.

    Args:
      model: from `modjax.load`.
      library: E experts of this model, or the skills of `train_poly`. It is not changed.
      tasks: the new tasks, held out of training or not; see `few`.
      heads: H; 1 is Poly, more is MHR. It must divide the input and output widths of all sites.
      weights_only: True is Poly-Z, which trains the weights and leaves the experts as they are.
      retrieved: {task: its experts}, from `retrieve`; by default all experts of the library for each task, without
        those whose training failed.
      router: the router that `train_poly` returned with its skills. The weights of each new task start at their mean
        over the router's tasks; without a router, at 1 / E.
      weights_rate: the learning rate of Z relative to that of the experts; 0.1 over 1e-3 in the reference.
      workdir, progress, settings: as in `train_library`; rank, alpha and sites are the library's. With `patience` each
        task keeps its best arrays.

    Returns:
      One expert per task, named after it.

    Raises InputError for settings, tasks and experts that do not fit.
    """
    arguments.instance("model", model, Model).check(library)
    heads = checked_heads(model.config, library.sites, heads)
    weights_only = arguments.flag("weights_only", weights_only)
    weights_rate = arguments.number("weights_rate", weights_rate, least=0)
    tasks, scale = few(tasks), scale_of(library)
    settings = arguments.made(
        Settings, settings | {"rank": library.rank, "alpha": scale * library.rank, "sites": library.sites}
    )
    check_factors(settings.tie, library.loras)
    chosen = retrieved_from(library, tasks, retrieved)
    ids_TS = np.asarray([[library.names.index(expert) for expert in own] for own in chosen.values()])
    if retrieved is None:
        ids_TS = ids_TS[:1]  # all tasks share the same experts
    given, frozen = _arrays(library, ids_TS, _start(router, library, heads, ids_TS), len(tasks), weights_only)
    recipe = PolyTraining(given, frozen, weights_rate, settings)
    fitted = fit(model, tasks, {name: (name,) for name in tasks}, recipe, settings, workdir, progress)
    weights_TS = np.asarray(task_weights(fitted.trained["weights"][0])).mean(axis=1)
    method = {"method": _name(heads, weights_only), "heads": heads, "weights_rate": weights_rate}
    infos = tuple(
        expert_info(
            model, settings, fitted, member, task, (task,), **method, experts=", ".join(own), weights=_listed(weights_S)
        )
        for member, ((task, own), weights_S) in enumerate(zip(chosen.items(), weights_TS, strict=True))
    )
    return Library(recipe.experts(fitted.trained, recipe.frozen), infos)


def _arrays(library, ids_TS, start, n_tasks, weights_only) -> tuple[dict, dict]:
    """(given, frozen) of `PolyTraining`: weights of each task that start alike, and the skills on either side."""
    given, frozen = {"weights": np.broadcast_to(start, (1, n_tasks, *start.shape[2:]))}, _skills(library, ids_TS)
    if weights_only:
        return given, frozen
    given["skills"] = {site: Factors(*(_copies(leaf, n_tasks) for leaf in own[:2])) for site, own in frozen.items()}
    return given, {site: own.scale for site, own in frozen.items()}


def _listed(weights_S) -> str:
    return ", ".join(f"{weight:.6g}" for weight in weights_S)


def _name(heads, weights_only):
    return ("poly" if heads == 1 else "mhr") + ("_z" if weights_only else "")


def _skills(library, ids_TS) -> Loras:
    """{site: LoRA(a[L,T,S,R,I], b[L,T,S,R,O], scale[L,T,S])}, the experts of each task."""
    return {
        site: LoRA(*(np.asarray(leaf, np.float32)[:, ids_TS] for leaf in (*lora.factors, lora.scale)))
        for site, lora in library.loras.items()
    }


def _copies(leaf_LTSRX, n_tasks):
    return np.broadcast_to(leaf_LTSRX, (leaf_LTSRX.shape[0], n_tasks, *leaf_LTSRX.shape[2:]))


def _start(router, library, heads, ids_TS) -> np.ndarray:
    """Z float32[1,T,H,S] whose weights are the means of the router: their logits, because they sum to 1."""
    if arguments.optional(arguments.instance)("router", router, Poly) is None:
        return np.zeros((1, len(ids_TS), heads, ids_TS.shape[1]), np.float32)
    mean_HE = np.asarray(router.weights, np.float64)[0].mean(axis=0)
    if mean_HE.shape != (heads, len(library)):
        raise InputError(
            f"router: weights of {mean_HE.shape[0]} heads over {mean_HE.shape[1]} skills; expected {heads} heads over "
            f"the {len(library)} experts of the library"
        )
    open_HE = np.clip(mean_HE, 1e-6, 1 - 1e-6)
    return np.float32(np.log(open_HE / (1 - open_HE))[:, ids_TS].swapaxes(0, 1))[None]
