"""Inputs of a model: prompts, examples and arrays of token ids, within its vocabulary and its context."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from modjax import arguments
from modjax.data import tokenize
from modjax.data.example import Example
from modjax.data.tasks import Task
from modjax.data.tokenize import Encoded, TooLong
from modjax.errors import InputError
from modjax.models.config import ModelConfig


class Reader(Protocol):
    """A model that reads tokens; `modjax.Model` is one."""

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Any: ...  # a tokenizer of transformers, or None

    @property
    def config(self) -> ModelConfig: ...


def prompts(model: Reader, sources: Any, system: str | None = None, max_new_tokens: int = 0) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n]; see `modjax.data.tokenize.prompts`.

    Raises InputError as it does, for what is no list of prompts, for texts if the model has no tokenizer, and as
    `check`.
    """
    sources = arguments.items("prompts", sources, "a list of prompts")
    if model.tokenizer is None and not all(map(tokenize.are_tokens, sources)):
        raise _no_tokenizer(model)
    found = tokenize.prompts(model.tokenizer, sources, system)
    for i, tokens in enumerate(found):
        check(model, f"prompt {i}", tokens, max_new_tokens)
    return found


def examples(
    model: Reader,
    task: Task,
    chosen: Sequence[Example],
    length: int,
    system: str | None = None,
    too_long: TooLong = "error",
    max_new_tokens: int = 0,
) -> list[Encoded]:
    """Prompt, target and end of turn of each of the chosen examples; see `modjax.data.tokenize.encode`.

    An example has at most `length` tokens and at most as many as the model's context; its prompt leaves room there for
    `max_new_tokens` too. Raises InputError as `encode`, if the model has no tokenizer, and as `check`.
    """
    if model.tokenizer is None:
        raise _no_tokenizer(model)
    limit = "the setting length" if length <= model.config.reach else f"the context of {model.name}"
    length = min(length, model.config.reach)
    encoded = tokenize.encode(model.tokenizer, task, chosen, length, system, too_long, limit)
    for index, (example, one) in enumerate(zip(chosen, encoded, strict=True)):
        where = tokenize.place(task, example, index)
        check(model, where, one.tokens)
        check(model, f"the prompt of {where}", one.tokens[: one.n_prompt], max_new_tokens)
    return encoded


def array(model: Reader, tokens_BT: Any) -> jax.Array:
    """int32[B,T], token ids given as an array or as nested lists, checked; the values of traced arrays are not known.

    Raises InputError for another rank or dtype, and as `check`.
    """
    try:
        given = tokens_BT if isinstance(tokens_BT, jax.Array) else np.asarray(tokens_BT)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"tokens_BT: {error}; expected token ids, int32[B,T]") from error
    if given.ndim != 2 or not jnp.issubdtype(given.dtype, jnp.integer):
        raise InputError(f"tokens_BT is an array of {given.dtype}{list(given.shape)}; expected token ids, int32[B,T]")
    if isinstance(given, jax.core.Tracer) or not getattr(given, "is_fully_addressable", True):
        check(model, "tokens_BT, row 0", np.zeros(given.shape[1], np.int32))  # the length alone
    else:
        for row, tokens in enumerate(np.asarray(given)):
            check(model, f"tokens_BT, row {row}", tokens)
    return jnp.asarray(given, jnp.int32)


def check(model: Reader, where: str, tokens: np.ndarray, max_new_tokens: int = 0) -> None:
    """Raises InputError unless the model can read these tokens, int[n], and as many new ones after them.

    There must be at least one token, no more than the context, and each must have a row in the embedding: positions
    beyond the context are not trained, and a token without a row makes the logits NaN.

    Args:
      where: the name of the tokens in the error.
    """
    together, context, rows = len(tokens) + max_new_tokens, model.config.reach, model.config.V
    if not len(tokens):
        raise InputError(f"{where} has no tokens; expected at least one")
    if together > context:
        new = f" and max_new_tokens={max_new_tokens}, together {together}" if max_new_tokens else ""
        raise InputError(
            f"{where} has {len(tokens)} tokens{new}; expected at most {context}, the context of {model.name}"
        )
    outside = np.flatnonzero((tokens < 0) | (tokens >= rows))
    if len(outside):
        at = int(outside[0])
        raise InputError(
            f"{where}: token {at} has the id {tokens[at]}{_word(model, tokens[at])}; expected ids from 0 to "
            f"{rows - 1}, the rows of the embedding of {model.name}"
        )


def _word(model, token) -> str:
    """The token's text, in brackets, if the tokenizer has one."""
    if model.tokenizer is None or not 0 <= token < 2**31:
        return ""
    word = model.tokenizer.convert_ids_to_tokens(int(token))
    return "" if word is None else f" ({word!r})"


def _no_tokenizer(model) -> InputError:
    return InputError(f"{model.name}: the checkpoint has no tokenizer; expected one, to read text")
