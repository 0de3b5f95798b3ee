"""CAT, the concatenation of LoRA Soups (arXiv 2410.13025): a merge of experts with coefficients learned from data.

    dW_l = sum_e c_le s_e B_le^T A_le

Only c is trained: one number per layer and expert, or per layer, site and expert. A few examples of a task that
combines the experts' skills are enough, and the result is a static merge that costs as much as one LoRA.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments, merge
from modjax.adapt.shots import few
from modjax.data.tasks import Tasks
from modjax.experts.failed import without_failed
from modjax.experts.library import Library, concatenate
from modjax.merge.product import checked_rank
from modjax.model import Model
from modjax.ops.lora import LoRA
from modjax.routing.base import Bound, hook
from modjax.routing.fixed import Fixed
from modjax.train.fit import fit
from modjax.train.groups import checked_groups
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings, SettingsFields

Per = Literal["layer", "site"]

DEFAULTS = {"steps": 100, "batch": 8, "length": 1024, "learning_rate": 1e-2, "dropout": 0.0}
ALL = "all sites"


def cat(
    model: Model,
    library: Library,
    tasks: Tasks,
    per: Per = "layer",
    rank: int | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    **settings: Unpack[SettingsFields],
) -> Library:
    """Learns the coefficients of the experts in each layer, and merges the experts with them.

    Args:
      model: from `modjax.load`; frozen, as are the experts.
      library: E experts of this model; those whose training failed are left out, with a warning.
      tasks: the tasks to learn from, held out or not; examples of their split "train".
      per: one coefficient per layer (the paper) or per site of a layer. They start at 1 / E.
      rank: rank to which each merged expert is truncated by an SVD; None keeps the sum of the experts' ranks.
      groups: {merged expert: [task, ...]}, all learned in lockstep; by default "cat" alone, of all tasks.
      workdir, progress, settings: as in `train_library`; by default 100 steps of 8 rows of 1024 tokens, at a peak rate
        of 0.01. Settings of LoRA itself have no effect.

    Returns:
      One expert per group; `training` of its ExpertInfo has the means of the coefficients over layers and sites.

    Raises InputError for settings, tasks and experts that do not fit.
    """
    arguments.choice("per", per, get_args(Per))
    library = without_failed(library)
    arguments.instance("model", model, Model).check(library)
    if rank is not None:
        checked_rank(library, rank)
    settings, tasks = arguments.made(Settings, DEFAULTS | settings | {"sites": library.sites}), few(tasks)
    groups = checked_groups({"cat": tuple(tasks)} if groups is None else groups)
    fitted = fit(model, tasks, groups, CatTraining(library, per, len(groups)), settings, workdir, progress)
    method = {"merged": "cat", "per": per, "learning_rate": settings.learning_rate, "seed": settings.seed}
    merged = []
    for index, (name, own) in enumerate(groups.items()):
        weights = {site: fitted.trained[_group(site, per)][:, index] for site in library.sites}
        one = _merged(library, weights, rank, name)
        training = dict(one.infos[0].training) | method | {"steps": fitted.steps[index], "weights": _means(weights)}
        found = {"failed": fitted.failed[index], "scores": one.infos[0].scores + fitted.scores[index]}
        info = dataclasses.replace(one.infos[0], tasks=own, training=training, **found)
        merged.append(dataclasses.replace(one, infos=(info,)))
    return concatenate(merged)


class CatTraining(Recipe):
    """Coefficients {site: c[L,G,E]}, or {"all sites": c[L,G,E]}, of G merged experts over one frozen library."""

    def __init__(self, library: Library, per: Per, n_groups: int):
        self.library, self.sites, self.per = library, library.sites, per
        start_LGE = np.full((library.layers, n_groups, len(library)), 1 / len(library), np.float32)
        self.given = {_group(site, per): start_LGE for site in self.sites}
        self.frozen = jax.tree.map(lambda leaf: np.asarray(leaf)[:, None], library.loras)

    def made_of(self):
        return {"library": self.library.fingerprint, "per": self.per}

    def start(self, key, given, n_members):
        return given

    def attach(self, decoder, trained, frozen, rows, key_B):
        router = Fixed({site: trained[_group(site, self.per)] for site in self.sites})
        return decoder, hook(Bound(frozen, router))

    def experts(self, trained, frozen):
        """The experts of each group stacked along the rank, c and s in B: a[L,G,ER,I], b[L,G,ER,O], scale 1."""
        found = {}
        for site, (a, b, scale_L1E) in frozen.items():
            b_LGERO = (trained[_group(site, self.per)] * scale_L1E)[..., None, None] * b
            a_LGERI = jnp.broadcast_to(a, (*b_LGERO.shape[:-1], a.shape[-1]))
            factors = (leaf.reshape(*leaf.shape[:2], -1, leaf.shape[-1]) for leaf in (a_LGERI, b_LGERO))
            found[site] = LoRA(*factors, jnp.ones(b_LGERO.shape[:2], jnp.float32))
        return found


def _group(site, per):
    return site if per == "site" else ALL


def _merged(library, weights, rank, name) -> Library:
    loras = {
        site: lora._replace(b=jnp.asarray(weights[site])[:, :, None, None] * lora.b)
        for site, lora in library.loras.items()
    }
    weighted, ones = dataclasses.replace(library, loras=loras), [1.0] * len(library)
    return merge.concatenate(weighted, ones, name) if rank is None else merge.svd(weighted, rank, ones, name)


def _means(weights) -> str:
    return ", ".join(f"{mean:.6g}" for mean in np.mean(list(weights.values()), axis=(0, 1)))
