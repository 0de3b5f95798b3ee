"""Models on a mesh."""

import dataclasses

import jax

from modjax.models import weights
from modjax.parallel import rules


def on(mesh, model):
    """The model with its weights split by the rules."""
    layout = rules.layout(mesh)
    leaves = [jax.device_put(leaf, layout(path, leaf)) for path, leaf in weights.leaves(model.params).items()]
    return dataclasses.replace(model, params=jax.tree.unflatten(jax.tree.structure(model.params), leaves), mesh=mesh)
