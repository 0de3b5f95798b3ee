"""The loss of targets under a routed model, one example per row."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from modjax.data import inputs
from modjax.data import rows as forests
from modjax.data.rows import Rows, pad_targets, stacked
from modjax.data.tokenize import Encoded
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, filled, fitting
from modjax.ops.losses import target_losses
from modjax.routing.base import Bound, Context
from modjax.routing.prompt import PromptRows, routed


def target_loss(
    model: Model,
    examples: Sequence[Encoded],
    bound: Bound | None = None,
    choices: Sequence[int | None] | None = None,
    batch: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss summed over the target tokens of each example, in nats, float64[n], and their number, int[n].

    Args:
      bound: from `model.bind`; None is the base model.
      choices: the choice of each example, for a router that needs one; see `Method.choices_of`.
      batch: number of rows computed at once; results do not depend on it.
    """
    totals, counts = np.zeros(len(examples)), np.zeros(len(examples), int)
    for ids, own, context, rows in batches(model, examples, choices, batch):
        prompts = prompts_of(own, rows)
        losses_NM = np.asarray(_losses(model.params, bound, context, prompts, rows), np.float64)
        totals[ids] = np.sum(losses_NM * rows.weights, axis=1)[: len(ids)]
        counts[ids] = np.sum(rows.weights, axis=1)[: len(ids)]
    return totals, counts


def losses(decoder: Decoder, bound: Bound | None, context: Context, prompts: PromptRows, rows: Rows) -> jax.Array:
    """float32[N,M], the loss of each target in nats."""
    experts = routed(decoder, bound, prompts, context)
    hidden_NTD = decoder(rows.tokens, rows.positions, rows.ends, **experts)
    return target_losses(decoder.logits, hidden_NTD, rows.at, rows.labels)


_losses = jax.jit(losses)


def batches(
    model: Model, examples: Sequence[Encoded], choices: Sequence[int | None] | None, batch: int
) -> Iterator[tuple[list[int], list[Encoded], Context, Rows]]:
    """(indices, examples, context, rows) of batches of examples of similar length; the last rows may be empty.

    Raises InputError for examples that the model cannot read, and for those without a token in their prompt.
    """
    for i, example in enumerate(examples):
        inputs.check(model, f"example {i}", example.tokens)
        inputs.check(model, f"the prompt of example {i}", example.tokens[: example.n_prompt])
    batch = fitting(batch, len(examples))
    for ids in batched_by_length([len(example.tokens) for example in examples], batch):
        own = [examples[i] for i in ids]
        choice_B = None if choices is None else filled([choices[i] for i in ids], batch, -1)
        yield ids, own, Context(choice_B), one_per_row(own, batch)


def one_per_row(examples: Sequence[Encoded], batch: int) -> Rows:
    """`batch` rows of one example each, padded to powers of two in length and number of targets: few compilations."""
    length = bucket(max(len(example.tokens) for example in examples))
    rows = stacked(forests.filled([example], length) for example in examples)
    rows = pad_targets(rows, bucket(rows.labels.shape[1], 16))
    return Rows(*(np.pad(field, ((0, batch - len(field)), (0, 0))) for field in rows))


def prompts_of(examples: Sequence[Encoded], rows: Rows) -> PromptRows:
    """The part of rows with one example each that a router of prompts may read: all but the targets."""
    lengths_N = filled([example.n_prompt for example in examples], rows.n_rows, 0)
    return PromptRows.right_padded(rows.tokens, lengths_N)
