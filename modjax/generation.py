"""Generation of answers: prompts in batches, decoded in chunks of tokens, with text read between."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

import jax
import numpy as np

from modjax import arguments
from modjax.data.tokenize import Encoded
from modjax.models import decode
from modjax.models.answer import Answer
from modjax.models.cache import Cache
from modjax.models.config import ModelConfig
from modjax.models.decode import CHUNK, Prompts
from modjax.models.decoder import Decoder
from modjax.models.padding import bucket, largest
from modjax.models.sampling import Sampling, sampling
from modjax.parallel.distributed import gather
from modjax.routing.base import Bound, Context, hook
from modjax.routing.batches import Batch, one_each, packed
from modjax.routing.prompt import settle

SHARED = 0.7  # prompts share rows if that leaves at most this part of their tokens


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


class Branch:
    """One answer while it is decoded: where it starts in the rows of a batch, and its tokens so far."""

    def __init__(self, generator: Generator, request: Request, prompt: int, row: int, nodes: np.ndarray):
        self.answer = Answer(generator.tokenizer, generator.ends, request.stops)
        self.left = request.max_new_tokens  # tokens that it may still have
        self.prompt, self.row, self.nodes = prompt, row, nodes

    def push(self, tokens: np.ndarray) -> Piece:
        """Takes the next tokens, as many as it may have."""
        tokens = tokens[: self.left]
        self.left -= len(tokens)
        text = self.answer.push(tokens)
        return Piece(self.prompt, text if self.left else text + self.answer.finish(), self.answer.over)

    @property
    def newest(self) -> int:
        """The last token, which has not been read."""
        return self.answer.tokens[-1]

    @property
    def node(self) -> int:
        """The index in its row of the token before the newest."""
        return self.nodes[len(self.answer.tokens) - 1]


def pieces(
    generator: Generator, prompts: Sequence[np.ndarray], choices: Sequence[int] | None, request: Request
) -> Iterator[Piece]:
    """Yields the answers to encoded prompts in pieces, as they are decoded; the prompts of one batch take turns.

    Args:
      prompts: from `modjax.data.inputs.prompts`, which leave room for their answers in the context.
      choices: for a router with choices, such as the oracle, the index of each prompt's choice.
    """
    for own in _batches(generator, prompts, choices, request):
        yield from _answered(generator, own, request)


def _batches(generator, prompts, choices, request) -> Iterable[Batch]:
    """Rows that share what prompts begin with, where that is much; else rows of one prompt each."""
    examples = [Encoded(np.append(prompt, 0), len(prompt)) for prompt in prompts]  # with a target where answers start
    given = (examples, generator.bound, choices, request.batch)
    config = generator.params.config
    split = config.original and config.original - room(request.max_new_tokens, config)
    shards = generator.params.row_shards
    shared = packed(*given, split, shards)
    n_tokens = sum(np.count_nonzero(own.rows.ends) for own in shared)
    return shared if n_tokens <= SHARED * sum(map(len, prompts)) else one_each(*given, shards)


def _answered(generator, own: Batch, request) -> Iterator[Piece]:
    config = generator.params.config
    bound = settle(generator.params, generator.bound, own.prompts)
    n_branches = min(bucket(max(member.targets.stop for member in own.members), 1), own.rows.at.shape[1])
    ids_BX = np.zeros((own.rows.n_rows, n_branches), np.int32)
    for prompt, row, targets in own.members:
        ids_BX[row, targets] = prompt
    node_BX = own.rows.at[:, :n_branches]
    prompts = Prompts(own.rows.tokens, own.rows.positions, own.rows.ends, node_BX, _keys(request, ids_BX))
    spare = room(request.max_new_tokens, config)
    first_BX, cache = _prefill(generator.params, bound, own.context, prompts, request.sampling, spare)
    first_BX, branches = gather(first_BX), []
    for prompt, row, targets in own.members:
        branches.append(Branch(generator, request, prompt, row, node_BX[row, targets]))
        yield branches[-1].push(first_BX[row, targets])
    yield from continued(generator, bound, own.context, cache, branches, request)


def continued(
    generator: Generator,
    bound: Bound | None,
    context: Context,
    cache: Cache,
    branches: Sequence[Branch],
    request: Request,
) -> Iterator[Piece]:
    """Yields the rest of answers that have begun, at most `request.batch` of them decoded at once.

    Args:
      bound: the experts, with a router that reads no prompts; see `modjax.routing.settle`.
      cache: of the rows in which the branches start; it is given up.
    """
    by_row: list[list[Branch]] = [[] for _ in range(cache.ends.shape[0])]
    for branch in branches:
        if not branch.answer.over:
            by_row[branch.row].append(branch)
    limit, most = largest(max(request.batch // len(by_row), 1)), max(map(len, by_row))
    for first in range(0, most, limit):
        turn, columns = [own[first : first + limit] for own in by_row], min(bucket(most - first, 1), limit)
        cache = yield from _decoded(generator, bound, context, cache, turn, columns, request)


def _decoded(generator, bound, context, cache, by_row, columns, request):
    """Yields pieces of the branches of each row, and returns the cache with their tokens."""
    placed = {(row, column): branch for row, own in enumerate(by_row) for column, branch in enumerate(own)}
    node_BX, newest_BX, ids_BX = np.zeros((3, len(by_row), columns), np.int32)
    over_BX, ends_Z = np.ones(node_BX.shape, bool), np.asarray(sorted(generator.ends), np.int32)
    for place, branch in placed.items():
        node_BX[place], newest_BX[place], ids_BX[place] = branch.node, branch.newest, branch.prompt
        over_BX[place] = False
    state = _begin(cache, node_BX, newest_BX, _keys(request, ids_BX))
    while not over_BX.all():
        steps = min(request.every, max(branch.left for place, branch in placed.items() if not over_BX[place]))
        how = (over_BX, ends_Z, steps, request.sampling)
        new_BXG, state = _advance(generator.params, bound, context, state, *how)
        new_BXG = gather(new_BXG)
        for place, branch in placed.items():
            if not over_BX[place]:
                piece = branch.push(new_BXG[place][:steps])
                over_BX[place] = piece.last
                yield piece
    return state.cache


def room(max_new_tokens: int, config: ModelConfig) -> int:
    """The tokens that a cache has room for in each answer, rounded up so that few programs are compiled.

    With longrope, the length of prompt and answer decides which rotary factors apply: room for answers is exact.
    """
    return max_new_tokens if config.original else bucket(max_new_tokens)


def _keys(request, ids_BX):
    """The random key of each prompt, whatever its batch."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(request.seed), ids_BX.reshape(-1))
    return keys.reshape(ids_BX.shape)


@functools.partial(jax.jit, static_argnames="room")
def _prefill(decoder, bound, context, prompts, how, room):
    return decode.prefill(decoder, prompts, room, how, **hook(bound, context))


_begin = jax.jit(decode.begin, donate_argnames="cache")


@functools.partial(jax.jit, donate_argnames="state")
def _advance(decoder, bound, context, state, over_BX, ends_Z, steps, how):
    return decode.advance(decoder, state, over_BX, ends_Z, steps, how, **hook(bound, context))
