"""A separate AdamW for each expert: one optax chain, mapped over the expert axis."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from modjax.train.settings import Settings


def schedule(settings: Settings) -> optax.Schedule:
    """Linear warm-up over the first W = warmup * S of S steps, then linear decay to zero.

    The rate of update i = 0, 1, ..., S - 1 is peak * min((i + 1) / W, (S - i) / (S - W + 1)).
    """
    steps, warm = settings.steps, max(1, round(settings.warmup * settings.steps))
    return lambda i: settings.learning_rate * jnp.minimum((i + 1) / warm, (steps - i) / (steps - warm + 1))


def per_expert(settings: Settings, rates: Mapping[str, float] | None = None) -> optax.GradientTransformation:
    """Clipping and AdamW with a separate gradient norm, step count, moments and decay for each expert.

    Arrays keep their layout, with the expert axis second, after the layer axis; in step counts it is the only axis.

    Args:
      rates: {top-level key of the parameters: factor of the learning rate there}; 1 for other keys.
    """
    chain = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(schedule(settings), weight_decay=settings.weight_decay),
        *([_rated(rates)] if rates else []),
    )

    def init(params: Any) -> Any:
        return jax.vmap(chain.init, in_axes=1, out_axes=_state_axes(chain, params))(params)

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        axes = _state_axes(chain, params)
        return jax.vmap(chain.update, in_axes=(1, axes, 1), out_axes=(1, axes))(grads, state, params)

    return optax.GradientTransformation(init, update)


def _rated(rates):
    def scale(updates, params):
        return {key: optax.tree.scale(rates.get(key, 1.0), own) for key, own in updates.items()}

    return optax.stateless(scale)


def _state_axes(chain, params):
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[:1] + leaf.shape[2:], leaf.dtype), params)
    return jax.tree.map(lambda leaf: 1 if leaf.ndim else 0, jax.eval_shape(chain.init, one))
