"""The loss of targets under a routed model, one example a row."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from modjax.data.pack import Rows, pack, pad_targets
from modjax.data.tokenize import Encoded
from modjax.model import Model
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, filled
from modjax.ops.losses import target_losses
from modjax.routing.base import Bound, Context
from modjax.routing.prompt import PromptRows, routed


def target_loss(
    model: Model,
    examples: Sequence[Encoded],
    bound: Bound | None = None,
    expert_ids: Sequence[int] | None = None,
    batch: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Summed loss and number of target tokens of each example, float64[n] and int[n]; the loss in nats.

    Args:
      bound: from `model.bind`; None is the base model.
      expert_ids: for a router that is told of tasks, what it is told of each example; see `Method.id_of`.
      batch: rows side by side; results do not depend on it.
    """
    totals, counts = np.zeros(len(examples)), np.zeros(len(examples), int)
    for ids, own, context, rows in batches(examples, expert_ids, batch):
        prompts = prompts_of(own, rows)
        losses_NM = np.asarray(_losses(model.params, bound, context, prompts, rows), np.float64)
        totals[ids] = np.sum(losses_NM * rows.weights, axis=1)[: len(ids)]
        counts[ids] = np.sum(rows.weights, axis=1)[: len(ids)]
    return totals, counts


def losses(decoder: Decoder, bound: Bound | None, context: Context, prompts: PromptRows, rows: Rows) -> jax.Array:
    """float32[N,M], the loss of each target in nats."""
    experts = routed(decoder, bound, prompts, context)
    hidden_NTD = decoder(rows.tokens, rows.positions, rows.segments, **experts)[0]
    return target_losses(decoder.logits, hidden_NTD, rows.at, rows.labels)


_losses = jax.jit(losses)


def batches(
    examples: Sequence[Encoded], expert_ids: Sequence[int | None] | None, batch: int
) -> Iterator[tuple[list[int], list[Encoded], Context, Rows]]:
    """(indices, examples, what a router is told, rows) of examples of similar length; the last rows may be empty."""
    for ids in batched_by_length([len(example.tokens) for example in examples], batch):
        own = [examples[i] for i in ids]
        told = None if expert_ids is None else filled([expert_ids[i] for i in ids], batch, -1)
        yield ids, own, Context(told), one_a_row(own, batch)


def one_a_row(examples: Sequence[Encoded], batch: int) -> Rows:
    """`batch` rows of one example each, padded to few shapes: lengths and target counts go by powers of two."""
    length = bucket(max(len(example.tokens) for example in examples))
    rows = [pack([example], length) for example in examples]
    n_targets = bucket(max(row.labels.shape[1] for row in rows), 16)
    padded = [pad_targets(row, n_targets) for row in rows]
    rows = Rows(*(np.concatenate(fields) for fields in zip(*padded, strict=True)))
    return Rows(*(np.pad(field, ((0, batch - len(field)), (0, 0))) for field in rows))


def prompts_of(examples: Sequence[Encoded], rows: Rows) -> PromptRows:
    """What a router of prompts may read of rows with one example each: not the targets."""
    lengths_N = filled([example.n_prompt for example in examples], rows.n_rows, 0)
    return PromptRows.right_padded(rows.tokens, lengths_N)
