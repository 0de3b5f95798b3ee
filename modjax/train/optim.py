"""A separate AdamW for each expert: one optax chain, mapped over the expert axis."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modjax.train.settings import Settings


class Lengths(NamedTuple):
    """How long members are trained: arrays, so that no program depends on it."""

    steps_E: Any  # int32
    warm_E: Any  # int32, the steps in which the rate rises, at least 1

    @classmethod
    def of(cls, settings: Settings, steps: Sequence[int]) -> "Lengths":
        """Those of members with these numbers of steps, on the host."""
        warm = [max(1, round(settings.warmup * own)) for own in steps]
        return cls(np.asarray(steps, np.int32), np.asarray(warm, np.int32))


def rates(settings: Settings, lengths: Lengths, step_E: jax.Array) -> jax.Array:
    """float32[E], the rate of each member's next update, after `step_E` of them.

    Linear warm-up over the first W = warmup * S of a member's S steps, then linear decay to zero: the rate of update
    i = 0, 1, ..., S - 1 is peak * min((i + 1) / W, (S - i) / (S - W + 1)).
    """
    steps_E, warm_E = lengths
    falling_E = (steps_E - step_E) / (steps_E - warm_E + 1)
    return settings.learning_rate * jnp.minimum((step_E + 1) / warm_E, falling_E)


def per_expert(settings: Settings, factors: Mapping[str, float] | None = None) -> optax.GradientTransformationExtraArgs:
    """Clipping and AdamW with a separate gradient norm, step count, moments and decay for each expert.

    Arrays keep their layout, with the expert axis second, after the layer axis; in step counts it is the only axis.
    `update` takes the learning rate of each expert, `rate_E`.

    Args:
      factors: {top-level key of the parameters: factor of the learning rate there}; 1 for other keys.
    """
    chain = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(settings.weight_decay),
        *([_scaled(factors)] if factors else []),
    )

    def init(params: Any) -> Any:
        return jax.vmap(chain.init, in_axes=1, out_axes=_state_axes(chain, params))(params)

    def update(grads: Any, state: Any, params: Any, *, rate_E: jax.Array) -> tuple[Any, Any]:
        def one(grads, state, params, rate):
            updates, state = chain.update(grads, state, params)
            return optax.tree.scale(-rate, updates), state

        axes = _state_axes(chain, params)
        return jax.vmap(one, in_axes=(1, axes, 1, 0), out_axes=(1, axes))(grads, state, params, rate_E)

    return optax.GradientTransformationExtraArgs(init, update)


def _scaled(factors):
    def scale(updates, params):
        return {key: optax.tree.scale(factors.get(key, 1.0), own) for key, own in updates.items()}

    return optax.stateless(scale)


def _state_axes(chain, params):
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[:1] + leaf.shape[2:], leaf.dtype), params)
    return jax.tree.map(lambda leaf: 1 if leaf.ndim else 0, jax.eval_shape(chain.init, one))
