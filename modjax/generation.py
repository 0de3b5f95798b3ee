"""Answers to prompts: batches of similar length, decoded in chunks, read as text between them."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from modjax.errors import InputError
from modjax.models import decode
from modjax.models.answer import Answer
from modjax.models.config import ModelConfig
from modjax.models.decode import CHUNK, Prompts
from modjax.models.decoder import Decoder
from modjax.models.padding import batched_by_length, bucket, filled, left_padded
from modjax.models.sampling import Sampling, sampling
from modjax.routing.base import Bound, Context, hook
from modjax.routing.prompt import PromptRows, settle


@dataclasses.dataclass(frozen=True)
class Request:
    """The settings of generation, checked; `Model.generate` explains each."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: str | Sequence[str] = ()
    seed: int = 0
    batch: int = 32
    every: int = CHUNK  # tokens drawn between two looks at the text by the host

    def __post_init__(self):
        for name in ("max_new_tokens", "batch", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name}={value!r}: expected a positive whole number")
        if self.every > CHUNK:
            raise InputError(f"every={self.every}: expected at most {CHUNK} tokens")
        if not all(isinstance(stop, str) and stop for stop in self.stops):
            raise InputError(f"stop={self.stop!r}: expected strings of at least one character")
        sampling(self.temperature, self.top_k, self.top_p)

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def sampling(self) -> Sampling | None:
        return sampling(self.temperature, self.top_k, self.top_p)


class Voice(NamedTuple):
    """The model that answers and its experts."""

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
    voice: Voice, prompts: Sequence[np.ndarray], choices: Sequence[int] | None, request: Request
) -> Iterator[Piece]:
    """The answers to encoded prompts as they come, those of one batch in turns, each up to its last piece.

    choices: for a router with choices, as the oracle, the index of each prompt's. Raises InputError, before anything is
    computed, for a prompt without tokens and for one that leaves no room for its answer.
    """
    for i, tokens in enumerate(prompts):
        _check(i, len(tokens), request.max_new_tokens, voice.params.config.context)
    return _all_pieces(voice, prompts, choices, request)


def _check(prompt, length, max_new_tokens, context):
    if length == 0:
        raise InputError(f"prompt {prompt} has no tokens; expected at least one")
    if length + max_new_tokens > context:
        raise InputError(
            f"prompt {prompt} has {length} tokens and max_new_tokens={max_new_tokens}, together "
            f"{length + max_new_tokens}; expected at most {context}, the model's context"
        )


def _all_pieces(voice, prompts, choices, request):
    rows = min(request.batch, bucket(len(prompts), 1))
    for ids in batched_by_length([len(tokens) for tokens in prompts], rows):
        for row, text, last in _batch(voice, prompts, ids, rows, _context(choices, ids, rows), request):
            yield Piece(ids[row], text, last)


def _batch(voice, prompts, ids, rows, context, request):
    """(row, text, whether it is the last) of each piece; the prompts `ids` are the first rows."""
    columns, room = shape(max(len(prompts[i]) for i in ids), request.max_new_tokens, voice.params.config)
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(request.seed), filled(ids, rows, 0))
    padded = Prompts(*left_padded([prompts[i] for i in ids], rows, columns), keys_B)
    bound = settle(voice.params, voice.bound, PromptRows.left_padded(padded.tokens_BT, padded.lengths_B))
    state = _prefill(voice.params, bound, context, padded, request.sampling, room)
    answers = [Answer(voice.tokenizer, voice.ends, request.stops) for _ in ids]
    over_B, ends_Z = np.arange(rows) >= len(ids), np.asarray(sorted(voice.ends), np.int32)
    drawn, new_BG = 1, np.asarray(state.newest_B)[:, None]
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
        new_BG, state = _advance(voice.params, bound, context, state, over_B, ends_Z, steps, request.sampling)
        drawn, new_BG = drawn + steps, np.asarray(new_BG)[:, :steps]


def shape(longest: int, max_new_tokens: int, config: ModelConfig) -> tuple[int, int]:
    """The columns for a batch's prompts and the room for its answers, from few sizes.

    Under longrope the cache's length decides how positions are turned, so there padding alone never takes it beyond
    the original context.
    """
    columns, room = bucket(longest), bucket(max_new_tokens)
    scaling = config.rope_scaling
    if scaling and scaling.kind == "longrope" and longest + max_new_tokens <= scaling.original < columns + room:
        return scaling.original - max_new_tokens, max_new_tokens
    return columns, room


def _context(choices, ids, rows):
    """The context of a batch, made once from its prompts and the same for every step of decoding."""
    return Context(None if choices is None else filled([choices[i] for i in ids], rows, -1))


@functools.partial(jax.jit, static_argnames="room")
def _prefill(decoder, bound, context, prompts, how, room):
    return decode.prefill(decoder, prompts, room, how, **hook(bound, context))


@functools.partial(jax.jit, donate_argnames="state")
def _advance(decoder, bound, context, state, over_B, ends_Z, steps, how):
    return decode.advance(decoder, state, over_B, ends_Z, steps, how, **hook(bound, context))
