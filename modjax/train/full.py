"""Full fine-tuning: all weights on the union of the tasks, a baseline for adapters."""

import dataclasses
import pathlib
from typing import Any, Unpack

import jax
import jax.numpy as jnp

from modjax import arguments
from modjax.data.tasks import Tasks, checked_tasks
from modjax.errors import InputError
from modjax.model import Model
from modjax.models import weights
from modjax.models.decoder import Decoder
from modjax.parallel import rules
from modjax.train.fit import fit
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings, SettingsFields


class FullTraining(Recipe):
    """Training of the whole decoder as one member: {path: float32 leaf with a member axis of size 1 second}."""

    def __init__(self, decoder: Decoder):
        self.given = weights.leaves(decoder)

    def made_of(self):
        return {}  # the model's own weights

    def start(self, key, given, n_members):
        return {path: leaf[:, None].astype(jnp.float32) for path, leaf in given.items()}

    def attach(self, decoder, trained, frozen, rows, key_B):
        return filled(decoder, trained), {}

    def partition(self, name):
        first, *rest = tuple(rules.spec(name)) or (None,)
        return jax.P(first, None, *rest)


def filled(decoder: Decoder, leaves: dict[str, Any]) -> Decoder:
    """The decoder with other weights, {path: leaf}, cast to the dtypes of its own."""
    own = weights.leaves(decoder)
    cast = [jnp.asarray(leaves[path], leaf.dtype) for path, leaf in own.items()]
    return jax.tree.unflatten(jax.tree.structure(decoder), cast)


def train_full(
    model: Model,
    tasks: Tasks,
    workdir: str | pathlib.Path | None = None,
    progress: bool = True,
    learning_rate: float = 3e-5,
    **settings: Unpack[SettingsFields],
) -> Model:
    """Trains all weights on all tasks together; the given model is not changed.

    Needs twenty bytes per weight in addition to the model, sharded as the model's weights are: a float32 copy, that of
    the last finite loss, the gradient and two moments. If a loss is not finite, training ends with a warning, and the
    result has the last weights whose loss was finite.

    Args:
      model: from `modjax.load`, not quantised.
      tasks: the tasks to learn from; held-out tasks are left out.
      workdir, progress, settings: as in `train_library`; settings of adapters have no effect.

    Returns a model with the trained weights, in the dtypes of the given model; with early stopping, the weights of the
    lowest validation loss. Raises InputError for a quantised model, and as `train_library`.
    """
    arguments.instance("model", model, Model)
    integers = [path for path, leaf in weights.leaves(model.params).items() if leaf.dtype.kind in "iu"]
    if integers:
        raise InputError(f"{integers[0]}: quantised weights cannot be trained; load the model without quantize")
    settings = arguments.made(Settings, {"learning_rate": learning_rate, **settings})
    tasks = checked_tasks(tasks).training
    fitted = fit(model, tasks, {"full": tuple(tasks)}, FullTraining(model.params), settings, workdir, progress)
    layout = (lambda path, leaf: None) if model.mesh is None else rules.layout(model.mesh)
    leaves = {path: jax.device_put(leaf[:, 0], layout(path, leaf[:, 0])) for path, leaf in fitted.trained.items()}
    return dataclasses.replace(model, params=filled(model.params, leaves))
