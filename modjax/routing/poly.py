"""Poly and MHR routing (arXiv 2202.13914, 2211.03831): learned weights over experts for each task."""

import jax
import jax.numpy as jnp

from modjax.ops.lora import Mix
from modjax.routing.base import Router, named, static


class Poly(Router):
    """The weights of K tasks for H blocks; examples of other tasks get the mean over the K tasks."""

    weights: jax.Array = named("LKHE")  # float32, the same in every layer
    tasks: tuple[str, ...] = static()
    mix: Mix = static("heads")

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))  # a loaded file gives a list, which is not hashable

    def __call__(self, site, x_BTI, context):
        mean_HE = self.weights.mean(axis=0)
        if context.choice_B is None:
            return jnp.broadcast_to(mean_HE[None], (x_BTI.shape[0], *mean_HE.shape))
        own_BHE = self.weights[jnp.maximum(context.choice_B, 0)]
        return jnp.where((context.choice_B >= 0)[:, None, None], own_BHE, mean_HE[None])

    def choices(self, library):
        return self.tasks

    def choice_of(self, task, library):
        return self.tasks.index(task) if task in self.tasks else -1


def task_weights(logits: jax.Array) -> jax.Array:
    """sigmoid(Z) / (sum of sigmoid(Z) over the last axis, the experts, + 1e-12)."""
    open_ = jax.nn.sigmoid(logits)
    return open_ / (open_.sum(axis=-1, keepdims=True) + 1e-12)
