"""The loss of targets under a routed model, many examples per row."""

from collections.abc import Sequence

import jax
import numpy as np

from modjax.data import inputs
from modjax.data.tokenize import Encoded
from modjax.model import Model
from modjax.ops.losses import target_losses
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, hook
from modjax.routing.batches import packed
from modjax.routing.prompt import settle


def target_loss(
    model: Model,
    examples: Sequence[Encoded],
    bound: Bound | None = None,
    choices: Sequence[int | None] | None = None,
    batch: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss summed over the target tokens of each example, in nats, float64[n], and their number, int[n].

    What examples begin with is read once where routers allow it, such as the question of several answers, or the
    instruction of a task; see `modjax.routing.batches.packed`.

    Args:
      bound: from `model.bind`; None is the base model.
      choices: the choice of each example, for a router that needs one; see `Method.choices_of`.
      batch: number of examples computed at once if they share nothing; results do not depend on it.

    Raises InputError for examples that the model cannot read, and for those without a token in their prompt.
    """
    check(model, examples)
    totals = np.zeros(len(examples))
    for own in packed(examples, bound, choices, batch, model.config.original, model.params.row_shards):
        settled = settle(model.params, bound, own.prompts)
        losses_NM = np.float64(gather(_losses(model.params, settled, own.context, own.rows)))
        for example, row, targets in own.members:
            totals[example] = losses_NM[row, targets].sum()
    return totals, np.asarray([len(one.tokens) - one.n_prompt for one in examples], int)


@jax.jit
def _losses(decoder, bound, context, rows):
    """float32[N,M], the loss of each target in nats."""
    hidden_NTD = decoder(rows.tokens, rows.positions, rows.ends, **hook(bound, context))
    return target_losses(decoder.reader(), hidden_NTD, rows.at, rows.labels)


def check(model: Model, examples: Sequence[Encoded]) -> None:
    """Raises InputError for examples that the model cannot read, and for those without a token in their prompt."""
    for i, example in enumerate(examples):
        inputs.check(model, f"example {i}", example.tokens)
        inputs.check(model, f"the prompt of example {i}", example.tokens[: example.n_prompt])
