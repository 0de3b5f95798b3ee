"""Losses and greedy answers of examples, from one pass over their prompts and targets.

Where the most likely token is the target's, the greedy answer has it, and the pass has read it too. So an answer that
equals its target is complete; any other is decoded from the first token on that differs, in a branch of its row.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from modjax.data.rows import Rows
from modjax.data.tokenize import Encoded
from modjax.eval.likelihood import check, read_targets, target_loss
from modjax.experts.library import Library
from modjax.experts.paged import PagedLibrary
from modjax.generation import Branch, Generator, Piece, Request, continued, room
from modjax.model import Model
from modjax.models.cache import Cache
from modjax.models.decoder import Decoder
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, Context, Router
from modjax.routing.batches import Batch, packed
from modjax.routing.prompt import PromptRows, routed, settle
from modjax.routing.table import tabled


def losses_and_answers(
    model: Model,
    examples: Sequence[Encoded],
    library: Library | PagedLibrary | None,
    router: Router | None,
    choices: Sequence[int | None] | None,
    request: Request,
    done: Callable[[int], Any] = lambda n: None,
) -> tuple[np.ndarray, list[str]]:
    """The loss summed over the target tokens of each example, float64[n] in nats, and the answer to its prompt.

    They are those of `target_loss` and `Model.generate`.

    Args:
      choices: the choice of each example, for a router that needs one; see `Method.choices_of`.
      request: greedy.
      done: is called with the number of answers that have become complete.
    """
    check(model, examples)
    nats_n, answers = np.zeros(len(examples)), [""] * len(examples)
    if _other_factors(model, examples, request):
        nats_n, _ = target_loss(model, examples, model.bind(library, router), choices, request.batch)
        prompts = [one.tokens[: one.n_prompt] for one in examples]
        settings = {"max_new_tokens": request.max_new_tokens, "batch": request.batch}
        return nats_n, model.generate(prompts, library, router, choices, **settings)
    generator = model.generator(library, router)
    bound, choices = tabled(model.params, generator.bound, examples, choices, request.batch)
    for own in packed(examples, bound, choices, request.batch, shards=model.params.row_shards):
        for piece in _answered(generator, bound, own, request, nats_n):
            answers[piece.prompt] += piece.text
            done(piece.last)
    return nats_n, answers


def _other_factors(model, examples, request) -> bool:
    """Whether longrope's factors, which go by length, may differ between prompt with target and prompt with answer."""
    longest = max((len(one.tokens) for one in examples), default=0)
    original = model.config.original
    return original is not None and longest + request.max_new_tokens > original


def _answered(
    generator: Generator, bound: Bound | None, own: Batch, request: Request, nats_n: np.ndarray
) -> Iterator[Piece]:
    """Yields the answers of a batch in pieces, and puts the losses of its examples in their places of nats_n."""
    bound = settle(generator.params, bound, own.prompts)
    spare = room(request.max_new_tokens, generator.params.config)
    losses_NM, likely_NM, cache = read(generator.params, bound, own.context, None, own.rows, spare)
    losses_NM, likely_NM = gather((losses_NM, likely_NM))
    losses_NM, branches = np.float64(losses_NM), []
    for example, row, targets in own.members:
        nats_n[example] = losses_NM[row, targets].sum()
        branches.append(Branch(generator, request, example, row, own.rows.at[row, targets]))
        yield branches[-1].push(_agreed(likely_NM[row, targets], own.rows.labels[row, targets]))
    yield from continued(generator, bound, own.context, cache, branches, request)


def _agreed(likely_M: np.ndarray, labels_M: np.ndarray) -> np.ndarray:
    """The first tokens of the greedy answer: those of the target up to the first other one, and that one."""
    differ_M = likely_M != labels_M
    return likely_M[: differ_M.argmax() + 1] if differ_M.any() else likely_M


@functools.partial(jax.jit, static_argnames="room")
def read(
    decoder: Decoder, bound: Bound | None, context: Context, prompts: PromptRows | None, rows: Rows, room: int
) -> tuple[jax.Array, jax.Array, Cache]:
    """The loss of each target, float32[N,M] in nats, the most likely token in its place, int32[N,M], and the cache."""
    places = (rows.tokens, rows.positions, rows.ends, room)
    hidden_NTD, cache = decoder.prefill(*places, **routed(decoder, bound, prompts, context))
    return *read_targets(decoder, hidden_NTD, rows), cache
