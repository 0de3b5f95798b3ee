"""CAT, the concatenation of LoRA Soups (arXiv 2410.13025): many experts as one, by coefficients learned from data.

    dW_l = sum_e c_le s_e B_le^T A_le

Only c is trained: a number for each layer and expert, or for each layer, site and expert. So a few examples of the task
that combines the experts' skills are enough, and the result is a static merge that costs what one LoRA costs.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from modjax import merge
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError
from modjax.experts.library import Library, concatenate
from modjax.merge.product import checked_rank
from modjax.ops.lora import LoRA
from modjax.routing.base import Context, hook
from modjax.routing.fixed import Soup
from modjax.train.fit import fit
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings

Per = Literal["layer", "site"]

DEFAULTS = {"steps": 100, "batch": 8, "length": 1024, "learning_rate": 1e-2, "dropout": 0.0}
ALL = "all sites"


def cat(
    model: Any,
    library: Library,
    tasks: Tasks,
    per: Per = "layer",
    rank: int | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> Library:
    """Learns how much of each expert goes into each layer, then merges the experts so.

    Args:
      model: what `modjax.load` returns; frozen, as are the experts.
      library: E experts of this model.
      tasks: what the coefficients are learned on, from the "train" split of every task given, held out or not.
      per: one coefficient for each layer (the paper) or for each site of a layer. They begin at 1 / E.
      rank: to cut a merged expert to, by an SVD; None keeps the sum of the experts' ranks.
      groups: {merged expert: [task, ...]}, all learned in lockstep; by default one, "cat", of all tasks.
      workdir, progress, settings: as in `train_library`; by default 100 steps of 8 rows of 1024 tokens, at a peak rate
        of 0.01. `rank`, `alpha` and `dropout` of an expert in training have no place here.

    Returns:
      One expert a group; `training` of its ExpertInfo has the coefficients' means over layers and sites.

    Raises InputError for settings, tasks and experts that do not fit, and where training diverges.
    """
    if per not in get_args(Per):
        raise InputError(f"per={per!r}: expected one of {', '.join(get_args(Per))}")
    model.check(library)
    if rank is not None:
        checked_rank(library, rank)
    settings, tasks = Settings(**(DEFAULTS | settings | {"sites": library.sites})), few(tasks)
    groups = {"cat": tuple(tasks)} if groups is None else dict(groups)
    fitted = fit(model, tasks, groups, SoupTraining(library, per, len(groups)), settings, workdir, progress)
    method = {"merged": "cat", "per": per, "steps": fitted.steps}
    method |= {"learning_rate": settings.learning_rate, "seed": settings.seed}
    soups = []
    for index, (name, own) in enumerate(groups.items()):
        weights = {site: fitted.trained[_group(site, per)][:, index] for site in library.sites}
        if not all(np.isfinite(weights_LE).all() for weights_LE in weights.values()):
            raise InputError(f"learning_rate={settings.learning_rate}: the coefficients are not finite; try a smaller")
        soups.append(_told(_merged(library, weights, rank, name), own, method, weights, fitted.scores[index]))
    return concatenate(soups)


class SoupTraining(Recipe):
    """Coefficients {site, or "all sites" as one: c[L,G,E]} of G merged experts over one frozen library."""

    def __init__(self, library: Library, per: Per, n_groups: int):
        self.sites, self.per = library.sites, per
        n_layers = library.loras[self.sites[0]].a.shape[0]
        start_LGE = np.full((n_layers, n_groups, len(library)), 1 / len(library), np.float32)
        self.given = {_group(site, per): start_LGE for site in self.sites}
        loras = {site: LoRA(*(np.asarray(leaf)[:, None] for leaf in lora)) for site, lora in library.loras.items()}
        self.frozen = loras, np.asarray(library.scale)[None, None]

    def start(self, key, given):
        return given

    def attach(self, decoder, trained, frozen, rows, key):
        loras, scale_1E = frozen
        soup = Soup({site: trained[_group(site, self.per)] for site in self.sites})
        return decoder, hook((loras, scale_1E[0], soup), Context())

    def experts(self, trained, frozen):
        """Each group's experts one behind the other, c and s in B: a[L,G,ER,I], b[L,G,ER,O]."""
        loras, scale_11E = frozen
        joined = {}
        for site, (a, b) in loras.items():
            b_LGERO = (trained[_group(site, self.per)] * scale_11E)[..., None, None] * b
            a_LGERI = jnp.broadcast_to(a, (*b_LGERO.shape[:-1], a.shape[-1]))
            joined[site] = LoRA(*(leaf.reshape(*leaf.shape[:2], -1, leaf.shape[-1]) for leaf in (a_LGERI, b_LGERO)))
        return joined, jnp.ones(b_LGERO.shape[1], jnp.float32)


def _group(site, per):
    return site if per == "site" else ALL


def _merged(library, weights, rank, name) -> Library:
    loras = {
        site: LoRA(lora.a, jnp.asarray(weights[site])[:, :, None, None] * lora.b)
        for site, lora in library.loras.items()
    }
    weighed, ones = Library(loras, library.scale, library.infos), [1.0] * len(library)
    return merge.concatenate(weighed, ones, name) if rank is None else merge.svd(weighed, rank, ones, name)


def _told(merged, tasks, method, weights, scores) -> Library:
    info, means_E = merged.infos[0], np.mean(list(weights.values()), axis=(0, 1))
    training = dict(info.training) | method | {"weights": ", ".join(f"{mean:.6g}" for mean in means_E)}
    info = dataclasses.replace(info, tasks=tuple(tasks), training=tuple(training.items()), scores=info.scores + scores)
    return dataclasses.replace(merged, infos=(info,))
