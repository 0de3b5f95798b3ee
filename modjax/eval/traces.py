"""What a router does: the weights it gives each expert, token by token and layer by layer."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from modjax.data.tasks import Example, Task, Tasks
from modjax.data.tokenize import Encoded, encode
from modjax.eval.evaluate import Method, sample
from modjax.eval.likelihood import one_a_row, prompts_of
from modjax.model import Model
from modjax.models.padding import batched_by_length, filled
from modjax.routing.base import Context, bind
from modjax.routing.prompt import settle


def routing_weights(
    model: Model,
    method: Method,
    examples: Sequence[Encoded],
    batch: int = 16,
    expert_ids: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Each example's weights, float32[L, n, E], means over the sites of a layer; n is the example's length.

    expert_ids: for the oracle, each example's expert.
    """
    experts = model.experts(method.library, method.router)
    found: list[np.ndarray] = [np.zeros(0)] * len(examples)
    for ids in batched_by_length([len(example.tokens) for example in examples], batch):
        rows = one_a_row([examples[i] for i in ids], batch)
        context = Context(None if expert_ids is None else filled([expert_ids[i] for i in ids], batch, -1))
        settled = settle(model.params, experts, prompts_of([examples[i] for i in ids], rows))
        weights_LBTE = np.asarray(_site_means(model.params, settled, context, rows))
        for row, i in enumerate(ids):
            found[i] = weights_LBTE[:, row, : len(examples[i].tokens)]
    return found


@jax.jit
def _site_means(decoder, experts, context, rows):
    adapters, adapt = bind(*experts, context)
    n_experts = experts[1].shape[0]

    def look(layer, sites, x_BTI):
        layer_loras, router = layer
        return {
            site: _per_token(router(site, x_BTI, context), (*x_BTI.shape[:2], n_experts))
            for site in sites
            if site in layer_loras
        }

    seen = decoder.observe(look, rows.tokens, rows.positions, rows.segments, adapters=adapters, adapt=adapt)
    return sum(seen.values()) / len(seen)


def _per_token(weights, shape):
    """[E], [B, E] or [B, T, E] as [B, T, E]."""
    return jnp.broadcast_to(weights[:, None] if weights.ndim == 2 else weights, shape)


def routing_accuracy(
    model: Model, method: Method, tasks: Tasks, examples: int, seed: int, length: int, system: str | None
) -> float:
    """The share of test prompts whose own expert gets the most weight, over all tokens, sites and layers.

    Only tasks that an expert was trained on count; chance is one in the number of experts.
    """
    encoded, owners = [], []
    for task in tasks.values():
        if method.expert_of(task) is not None:
            own = encode(model.tokenizer, task, sample(task, "test", examples, seed), length, system)
            encoded += [Encoded(one.tokens[: one.n_prompt], one.n_prompt) for one in own]
            owners += [method.expert_of(task)] * len(own)
    chosen = [weights_LnE.sum((0, 1)).argmax() for weights_LnE in routing_weights(model, method, encoded)]
    return float(np.mean(np.asarray(chosen) == np.asarray(owners)))


def view(model: Model, method: Method, task: Task, example: Example, length: int, system: str | None) -> dict:
    """One example as the report shows it: its tokens as text, the weights of every layer, the expected expert."""
    (encoded,) = encode(model.tokenizer, task, [example], length, system)
    (weights_LnE,) = routing_weights(model, method, [encoded], batch=1)
    owner = method.expert_of(task)
    return {
        "library": method.name,
        "text": f"{task.name}: {example.source}",
        "tokens": [model.tokenizer.decode([token]) for token in encoded.tokens],
        "experts": list(method.library.names),
        "weights": weights_LnE.round(3).tolist(),
        "expected": None if owner is None else method.library.names[owner],
    }
