"""CAT, the concatenation of LoRA Soups (arXiv 2410.13025): many experts as one, by coefficients learned from data.

    dW_l = sum_e c_le s_e B_le^T A_le

Only c is trained: a number for each layer and expert, or for each layer, site and expert. So a few examples of the task
that combines the experts' skills are enough, and the result is a static merge that costs what one LoRA costs.
"""

import dataclasses
import functools
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from modjax.data import loader
from modjax.data.pack import Rows, pack
from modjax.data.tasks import Tasks
from modjax.data.tokenize import encode
from modjax.errors import InputError
from modjax.experts import merge
from modjax.experts.library import Library
from modjax.experts.merge.product import checked_rank
from modjax.ops.lora import LoRA, Mix
from modjax.ops.losses import target_losses
from modjax.routing.base import Context, Router, hook, per_site, static
from modjax.train.optim import schedule
from modjax.train.settings import Settings

Per = Literal["layer", "site"]

_ADAM = optax.scale_by_adam()


class Soup(Router):
    """The same weights for every token, of each layer and site its own."""

    weights: dict[str, jax.Array] = per_site("LE")
    mix: Mix = static("outputs")

    def __call__(self, site, x_BTI, context):
        return self.weights[site]


def cat(
    model: Any,
    library: Library,
    tasks: Tasks,
    per: Per = "layer",
    rank: int | None = None,
    steps: int = 100,
    batch: int = 8,
    length: int = 1024,
    learning_rate: float = 1e-2,
    seed: int = 0,
    progress: bool = True,
    name: str = "cat",
) -> Library:
    """Learns how much of each expert goes into each layer, then merges the experts so.

    Args:
      model: what `modjax.load` returns; frozen, as are the experts.
      library: E experts of this model.
      tasks: what the coefficients are learned on, from the "train" split of every task given, held out or not.
      per: one coefficient for each layer (the paper) or for each site of a layer. They begin at 1 / E.
      rank: to cut the merged expert to, by an SVD; None keeps the sum of the experts' ranks.
      steps: of Adam, each on `batch` packed rows of `length` tokens.
      learning_rate: the peak, behind a warm-up of 6 % of the steps; it falls to 0.
      seed: of the order of the rows.

    Returns:
      A library of one; `training` of its ExpertInfo has the coefficients' means over layers and sites, `scores` the
      mean of the last steps' losses in nats a target token.

    Raises InputError for settings, tasks and experts that do not fit, and where training diverges.
    """
    if per not in get_args(Per):
        raise InputError(f"per={per!r}: expected one of {', '.join(get_args(Per))}")
    model.check(library)
    if rank is not None:
        checked_rank(library, rank)
    settings = Settings(steps=steps, batch=batch, length=length, learning_rate=learning_rate, seed=seed)
    batches = _batches(model, tasks, settings)
    weights, loss = _learned(model, library, batches, settings, per, progress)
    means_E = np.mean([np.asarray(weights_LE) for weights_LE in weights.values()], axis=(0, 1))
    if not np.isfinite(means_E).all():
        raise InputError(f"learning_rate={learning_rate}: the coefficients are not finite; try a smaller rate")
    method = {"merged": "cat", "per": per, "steps": steps, "learning_rate": learning_rate, "seed": seed}
    method["weights"] = ", ".join(f"{mean:.6g}" for mean in means_E)
    return _told(_merged(library, weights, rank, name), method, loss)


def _batches(model, tasks, settings):
    """Rows [B, ...] of each step, of all tasks together."""
    if model.tokenizer is None:
        raise InputError(f"{model.name}: the checkpoint has no tokenizer, so there are no tokens to train on")
    if settings.length > model.config.context:
        raise InputError(f"length={settings.length}: {model.name} reads at most {model.config.context} tokens")
    encoded = [
        one for task in tasks.values() for one in encode(model.tokenizer, task, task.split("train"), settings.length)
    ]
    if not encoded:
        raise InputError("the tasks have no examples in split 'train'; expected at least one")
    rows = {"cat": pack(encoded, settings.length)}
    endless = loader.batches(rows, settings.batch, settings.steps, settings.seed)
    return (Rows(*(field[0] for field in step)) for step in endless)


def _learned(model, library, batches, settings, per, progress):
    """{site: float32[L,E]} and the mean loss of the last tenth of the steps."""
    n_layers = next(iter(library.loras.values())).a.shape[0]
    groups = {site: site if per == "site" else "all sites" for site in library.sites}
    start_LE = jnp.full((n_layers, len(library)), 1 / len(library), jnp.float32)
    coefficients = dict.fromkeys(groups.values(), start_LE)
    opt_state, losses, rate = _ADAM.init(coefficients), [], schedule(settings)
    fixed = (model.params, library.loras, library.scale, tuple(groups.items()))
    for i, rows in enumerate(tqdm(batches, total=settings.steps, unit="step", disable=not progress)):
        coefficients, opt_state, loss = _step(*fixed, coefficients, opt_state, rows, rate(i))
        losses.append(loss)
    last = losses[-max(1, settings.steps // 10) :]
    return {site: coefficients[group] for site, group in groups.items()}, float(np.mean(jax.device_get(last)))


@functools.partial(jax.jit, static_argnames="groups")
def _step(decoder, loras, scale_E, groups, coefficients, opt_state, rows, rate):
    def objective(coefficients):
        router = Soup({site: coefficients[group] for site, group in groups})
        routed = hook((loras, scale_E, router), Context())
        hidden_BTD, _ = decoder(rows.tokens, rows.positions, rows.segments, **routed)
        losses_BM = target_losses(decoder.logits, hidden_BTD, rows.at, rows.labels)
        return jnp.sum(jnp.where(rows.weights > 0, losses_BM * rows.weights, 0)) / jnp.sum(rows.weights)

    loss, grads = jax.value_and_grad(objective)(coefficients)
    updates, opt_state = _ADAM.update(grads, opt_state)
    return jax.tree.map(lambda c, update: c - rate * update, coefficients, updates), opt_state, loss


def _merged(library, weights, rank, name):
    loras = {site: LoRA(lora.a, weights[site][:, :, None, None] * lora.b) for site, lora in library.loras.items()}
    weighed, ones = Library(loras, library.scale, library.infos), [1.0] * len(library)
    if rank is None:
        return merge.concatenate(weighed, ones, name)
    return merge.svd(weighed, rank, ones, name)


def _told(merged, method, loss):
    info = merged.infos[0]
    training = tuple((dict(info.training) | method).items())
    info = dataclasses.replace(info, training=training, scores=(*info.scores, ("train_loss", loss)))
    return dataclasses.replace(merged, infos=(info,))
