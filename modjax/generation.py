"""Generation of answers: prompts in batches of similar length, decoded in chunks of tokens, with text read between."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from modjax import arguments
from modjax.models import decode
from modjax.models.answer import Answer
from modjax.models.config import ModelConfig
from modjax.models.decode import CHUNK, Prompts
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, filled
from modjax.models.sampling import Sampling, sampling
from modjax.routing.base import Bound, Context, hook
from modjax.routing.prompt import PromptRows, settle


@dataclasses.dataclass(frozen=True)
class Request:
    """The settings of generation. Raises InputError naming an invalid one.

    Attributes:
      max_new_tokens: tokens after which an answer is cut.
      temperature: 0 is greedy: the most likely token each time.
      top_k: sample from this many of the most likely tokens; None is all.
      top_p: of these, sample from the fewest most likely ones that together have this probability (arXiv 1904.09751);
        None is all.
      stop: one or more strings that end an answer where the first of them occurs; they are not part of it. None is
        none.
      seed: seed of sampling with temperature > 0. Prompt i has the i-th random key, whatever its text and its batch.
      batch: number of prompts decoded at once; answers do not depend on it.
      every: number of tokens decoded, 1 to 16, before their text is read and passed on. Each reading costs one
        dispatch; answers do not depend on it.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: str | Sequence[str] | None = ()
    seed: int = 0
    batch: int = 32
    every: int = CHUNK

    def __post_init__(self):
        arguments.check_fields(self, ("max_new_tokens", "batch"), arguments.whole, least=1)
        arguments.check_fields(self, ("every",), arguments.whole, least=1, most=CHUNK)
        arguments.check_fields(self, ("seed",), arguments.seed)
        arguments.check_fields(self, ("temperature",), arguments.number, least=0)
        arguments.check_fields(self, ("top_k",), arguments.optional(arguments.whole), least=1)
        arguments.check_fields(self, ("top_p",), arguments.optional(arguments.number), above=0, most=1)
        for stop in self.stops:
            if not arguments.text("stop", stop):
                raise arguments.refused("stop", self.stop, "strings of at least one character")

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        if isinstance(self.stop, str):
            return (self.stop,)
        return tuple(arguments.items("stop", self.stop, "a string, or a list of strings"))

    @property
    def sampling(self) -> Sampling | None:
        return sampling(self.temperature, self.top_k, self.top_p)


class RequestFields(TypedDict, total=False):
    """The fields of `Request` as keyword arguments: the type of `**settings` in `Model.generate` and `Model.stream`."""

    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    stop: str | Sequence[str] | None
    seed: int
    batch: int
    every: int


class Generator(NamedTuple):
    """A model for generation: decoder and tokenizer, and its experts with their router."""

    params: Decoder
    tokenizer: Any
    ends: frozenset[int]  # the tokens that end a turn
    bound: Bound | None


class Piece(NamedTuple):
    """A part of one answer."""

    prompt: int  # its index
    text: str
    last: bool


def pieces(
    generator: Generator, prompts: Sequence[np.ndarray], choices: Sequence[int] | None, request: Request
) -> Iterator[Piece]:
    """Yields the answers to encoded prompts in pieces, as they are decoded; the prompts of one batch take turns.

    Args:
      prompts: from `modjax.data.inputs.prompts`, which leave room for their answers in the context.
      choices: for a router with choices, such as the oracle, the index of each prompt's choice.
    """
    rows = min(request.batch, bucket(len(prompts), 1))
    for ids in batched_by_length([len(tokens) for tokens in prompts], rows):
        for row, text, last in _batch(generator, prompts, ids, rows, _context(choices, ids, rows), request):
            yield Piece(ids[row], text, last)


def _batch(generator, prompts, ids, rows, context, request):
    """Yields (row, text, whether it is the last piece) for the prompts `ids`, which are the first rows of the batch."""
    columns, room = shape(max(len(prompts[i]) for i in ids), request.max_new_tokens, generator.params.config)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(request.seed), filled(ids, rows, 0))
    placed = PromptRows.one_each([prompts[i] for i in ids], rows, columns)
    bound = settle(generator.params, generator.bound, placed)
    node_BX = np.maximum(placed.lengths_B - 1, 0)[:, None]
    padded = Prompts(*placed, node_BX, keys_B[:, None])
    state = _prefill(generator.params, bound, context, padded, request.sampling, room)
    answers = [Answer(generator.tokenizer, generator.ends, request.stops) for _ in ids]
    over_B, ends_Z = np.arange(rows) >= len(ids), np.asarray(sorted(generator.ends), np.int32)
    drawn, new_BG = 1, np.asarray(state.newest_BX)
    while True:
        for row in np.flatnonzero(~over_B):
            text = answers[row].push(new_BG[row])
            if drawn == request.max_new_tokens:
                text += answers[row].finish()
            over_B[row] = answers[row].over
            if text or over_B[row]:
                yield row, text, bool(over_B[row])
        if over_B.all():
            return
        steps = min(request.every, request.max_new_tokens - drawn)
        how = (over_B[:, None], ends_Z, steps, request.sampling)
        new_BXG, state = _advance(generator.params, bound, context, state, *how)
        drawn, new_BG = drawn + steps, np.asarray(new_BXG)[:, 0, :steps]


def shape(longest: int, max_new_tokens: int, config: ModelConfig) -> tuple[int, int]:
    """The number of columns for a batch's prompts and for its answers, rounded up so that few programs are compiled.

    With longrope, the length of prompt and answer decides which rotary factors apply: room for answers is exact.
    """
    return bucket(longest), max_new_tokens if config.original else bucket(max_new_tokens)


def _context(choices, ids, rows):
    """The context of a batch, the same for every step of decoding."""
    return Context(None if choices is None else filled([choices[i] for i in ids], rows, -1))


@functools.partial(jax.jit, static_argnames="room")
def _prefill(decoder, bound, context, prompts, how, room):
    return decode.prefill(decoder, prompts, room, how, **hook(bound, context))


@functools.partial(jax.jit, donate_argnames="state")
def _advance(decoder, bound, context, state, over_B, ends_Z, steps, how):
    return decode.advance(decoder, state, over_B, ends_Z, steps, how, **hook(bound, context))
