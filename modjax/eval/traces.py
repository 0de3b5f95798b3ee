"""Routing weights of single examples, token by token and layer by layer."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tokenize import Encoded
from modjax.eval.likelihood import check
from modjax.eval.method import Method
from modjax.eval.sample import Chosen
from modjax.model import Model
from modjax.ops.top_k import dense
from modjax.parallel.distributed import gather
from modjax.routing.base import Context, Router
from modjax.routing.batches import one_each
from modjax.routing.prompt import routed


def routing_weights(
    model: Model,
    method: Method,
    examples: Sequence[Encoded],
    batch: int = 16,
    choices: Sequence[int | None] | None = None,
) -> list[np.ndarray]:
    """The weights of each example, float32[L, n, E]: means over the sites of a layer; n is the example's length.

    Args:
      batch: number of rows computed at once; results do not depend on it.
      choices: the choice of each example, for a router that needs one; see `Method.choices_of`.
    """
    bound = model.bind(method.loaded, method.router)
    check(model, examples)
    whole = [Encoded(np.append(one.tokens, 0), one.n_prompt) for one in examples]  # rows have all but the last token
    found: list[np.ndarray] = [np.zeros(0)] * len(examples)
    for own in one_each(whole, bound, choices, batch, model.params.row_shards):
        weights_LBTE = gather(_site_means(model.params, bound, own.context, own.prompts, own.rows))
        for example, row, _ in own.members:
            found[example] = weights_LBTE[:, row, : len(examples[example].tokens)]
    return found


@jax.jit
def _site_means(decoder, bound, context, prompts, rows):
    def look(layer, sites, x_BTI):
        return {
            site: token_weights(layer.router, site, x_BTI, context, bound.loras[site].b.shape[1])
            for site in sites
            if site in bound.loras
        }

    experts = routed(decoder, bound, prompts, context)
    seen = decoder.observe(look, rows.tokens, rows.positions, rows.ends, **experts)
    return sum(seen.values()) / len(seen)


def token_weights(router: Router, site: str, x_BTI: jax.Array, context: Context, n_experts: int) -> jax.Array:
    """The weights of each token, float32[B,T,E], for any kind of router; those of heads are averaged over heads."""
    weights = dense(router(site, x_BTI, context), n_experts)
    if router.mix == "heads":
        weights = weights.mean(axis=1)
    weights = weights[:, None] if weights.ndim == 2 else weights
    return jnp.broadcast_to(weights, (*x_BTI.shape[:2], n_experts))


def view(model: Model, method: Method, chosen: Chosen) -> dict:
    """One example of `results["routing"]`, see `modjax.report`: tokens as text, weights, the expected expert."""
    task, example, encoded = chosen
    (weights_LnE,) = routing_weights(model, method, [encoded], batch=1, choices=method.choices_of([chosen]))
    owner = method.expert_of(task)
    return {
        "library": method.name,
        "text": f"{task.name}: {example.source}",
        "tokens": [model.tokenizer.decode([token]) for token in encoded.tokens],
        "experts": list(method.library.names),
        "weights": weights_LnE.round(3).tolist(),
        "expected": None if owner is None else method.library.names[owner],
    }
