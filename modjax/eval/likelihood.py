"""The loss of targets under a routed model, many examples per row."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from modjax.data import inputs
from modjax.data.rows import Rows
from modjax.data.tokenize import Encoded
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.ops.losses import at_targets, target_losses
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, hook
from modjax.routing.batches import packed
from modjax.routing.prompt import settle
from modjax.routing.table import tabled


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
    bound, choices = tabled(model.params, bound, examples, choices, batch)
    for own in packed(examples, bound, choices, batch, model.config.original, model.params.row_shards):
        settled = settle(model.params, bound, own.prompts)
        losses_NM = np.float64(gather(_losses(model.params, settled, own.context, own.rows)))
        for example, row, targets in own.members:
            totals[example] = losses_NM[row, targets].sum()
    return totals, np.asarray([len(one.tokens) - one.n_prompt for one in examples], int)


class Scored(NamedTuple):
    """One example that has been read."""

    example: int  # its index among all examples
    nats: float  # loss summed over its target tokens
    greedy: bool  # whether each of these is the most likely one in its place


def scored(model: Model, examples: Sequence[Encoded], bound: Bound | None = None, batch: int = 32) -> Iterator[Scored]:
    """Yields the loss of each example, and whether its target is the greedy answer, as batches are read.

    The last token of an example is predicted and not read, so that it may be one more than the context has room for.
    Arguments and sharing are those of `target_loss`.

    Raises InputError for examples that the model cannot read.
    """
    for i, example in enumerate(examples):
        inputs.check(model, f"request {i}", example.tokens[:-1])
        inputs.check(model, f"the continuation of request {i}", example.tokens[example.n_prompt :])
    bound, choices = tabled(model.params, bound, examples, None, batch)
    for own in packed(examples, bound, choices, batch, model.config.original, model.params.row_shards):
        settled = settle(model.params, bound, own.prompts)
        losses_NM, likely_NM = gather(_scores(model.params, settled, own.context, own.rows))
        for example, row, targets in own.members:
            greedy = np.array_equal(likely_NM[row, targets], own.rows.labels[row, targets])
            yield Scored(example, float(np.float64(losses_NM[row, targets]).sum()), greedy)


@jax.jit
def _scores(decoder, bound, context, rows):
    return read_targets(decoder, decoder(rows.tokens, rows.positions, rows.ends, **hook(bound, context)), rows)


def read_targets(decoder: Decoder, hidden_NTD: jax.Array, rows: Rows) -> tuple[jax.Array, jax.Array]:
    """The loss of each target, float32[N,M] in nats, and the most likely token in its place, int32[N,M]."""
    logits_of = decoder.reader()

    def look(hidden_NmD, labels_Nm):
        logits_NmV = logits_of(hidden_NmD)
        losses_Nm = optax.softmax_cross_entropy_with_integer_labels(logits_NmV, labels_Nm)
        return losses_Nm, jnp.argmax(logits_NmV, axis=-1).astype(jnp.int32)

    return at_targets(look, hidden_NTD, rows.at, rows.labels)


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
