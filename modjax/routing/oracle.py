"""Oracle routing: the expert of the example's own task, a reference for other routers."""

import jax

from modjax.arguments import instance
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.routing.base import Router, static


class Oracle(Router):
    n_experts: int = static()

    def __call__(self, site, x_BTI, context):
        if context.choice_B is None:
            raise InputError("the oracle router needs the expert of each example; expected Context(choice_B=...)")
        return jax.nn.one_hot(context.choice_B, self.n_experts)

    def choices(self, library):
        return library.names

    def choice_of(self, task, library):
        return library.expert_of(task)


def oracle(library: Library) -> Oracle:
    """One-hot weights, float32[B,E], from `context.choice_B`, int32[B]; -1 means no expert, so weights of 0."""
    return Oracle(len(instance("library", library, Library)))
