"""Examples as token ids: the source in the model's chat template, then the target and the template's end of turn."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from modjax import arguments
from modjax.data.example import Example
from modjax.data.messages import conversation
from modjax.data.tasks import Task
from modjax.data.template import render, turn
from modjax.errors import InputError

TooLong = Literal["error", "truncate", "truncate_all"]


class Encoded(NamedTuple):
    """One example: prompt and target in one array; the loss is on the tokens from index `n_prompt` on."""

    tokens: np.ndarray  # int32[n]
    n_prompt: int


def prompts(tokenizer: Any, sources: Iterable[Any], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n], up to where the answer begins; sources that are token ids are not changed.

    A chat template alone decides which special tokens there are. Without a template the prompt is the source (of a
    conversation, every message) and a newline. Special tokens that the tokenizer adds before a text, such as the
    beginning-of-sequence token of Llama and Mistral, are kept; those that it adds after a text are removed.

    Args:
      tokenizer: a transformers tokenizer; may be None if all sources are token ids.
      sources: strings, conversations as lists of messages {"role", "content"}, or token ids: an array, int[n], or a
        list of whole numbers. A content is a text or a list of parts {"type": "text", "text"}.
      system: the system message for prompts that have none; None leaves it to the template, which may have a default.
        Not used without a template.

    Raises InputError for messages without role and text, for messages that the template refuses, for strings with lone
    surrogates, and for arrays that are not one row of token ids.
    """
    named = [(f"prompts[{i}]", source) for i, source in enumerate(sources)]
    conversations = [conversation(name, source) for name, source in named if not are_tokens(source)]
    ids = iter(_read(tokenizer, _texts(tokenizer, conversations, system)) if conversations else [])
    return [_row(name, source) if are_tokens(source) else next(ids) for name, source in named]


def encode(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    length: int,
    system: str | None = None,
    too_long: TooLong = "error",
    limit: str = "the setting length",
) -> list[Encoded]:
    """Prompt, target and end of turn of each example, at most `length` tokens.

    The end of turn is that of the chat template, see `modjax.data.template.turn`.

    Longer examples raise InputError, in which `length` is called `limit`. With too_long="truncate" their prompts are
    cut on the left instead, after a beginning-of-sequence token if there is one; a target that leaves no room for its
    prompt still raises InputError. With "truncate_all" it is cut on the right, so that one token of the prompt is left.
    A tokenizer without any token that ends a turn raises InputError too.
    """
    texts = _texts(tokenizer, [conversation("source", example.source) for example in examples], system)
    heads = _read(tokenizer, texts)
    tails = _answers(tokenizer, texts, heads, [example.target for example in examples])
    encoded = []
    for index, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        where = place(task, examples[index], index)
        start = int(len(head) > 0 and head[0] == tokenizer.bos_token_id)
        if too_long == "truncate_all":
            tail = tail[: max(length - start - 1, 1)]  # beside one token of the prompt
        excess = len(head) + len(tail) - length
        if excess > 0 and (too_long == "error" or excess >= len(head) - start):
            raise InputError(
                f"{where} has {length + excess} tokens; expected at most {length}, {limit}; "
                'too_long="truncate" cuts prompts, "truncate_all" also targets'
            )
        head = np.concatenate([head[:start], head[start + max(excess, 0) :]])
        encoded.append(Encoded(np.concatenate([head, tail]), len(head)))
    return encoded


def place(task: Task, example: Example, index: int) -> str:
    """The name of an example in errors."""
    return f"task {task.name!r}, {example.split} example {index}"


def are_tokens(source: Any) -> bool:
    """Whether a prompt is given as token ids: an array, or a list of numbers."""
    if isinstance(source, np.ndarray | jax.Array):
        return True
    return isinstance(source, list | tuple) and len(source) > 0 and isinstance(source[0], int | np.integer)


def _row(name, source):
    try:
        tokens = np.asarray(source)
    except ValueError:  # lists within the list, of different lengths
        raise arguments.refused(name, source, "token ids, int32[n]") from None
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"{name} is an array of {tokens.dtype}{list(tokens.shape)}; expected token ids, int32[n]")
    found = tokens.astype(np.int32)
    if not np.array_equal(found, tokens):
        raise InputError(f"{name}: ids from {tokens.min()} to {tokens.max()}; expected token ids, int32[n]")
    return found


def _texts(tokenizer, conversations, system) -> list[str]:
    """The text of each conversation, up to where the answer begins."""
    if system is not None:
        arguments.text("system", system)
    if not tokenizer.chat_template:
        return ["".join(one["content"] + "\n" for one in messages) for messages in conversations]
    return [render(tokenizer, _with_system(messages, system)) for messages in conversations]


def _with_system(messages, system):
    if system is None or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _read(tokenizer, texts) -> list[np.ndarray]:
    """Token ids of texts that go on: rendered ones as they are, others as the tokenizer begins them."""
    return _ids(tokenizer, texts) if tokenizer.chat_template else _unfinished(tokenizer, texts)


def _answers(tokenizer, texts, heads, targets) -> list[np.ndarray]:
    """Token ids of each target with its end of turn: what follows the prompt's tokens when both are read as one text.

    If the prompt's tokens are others then, because a token would join the two, the target is read alone.
    """
    lead, trail, end = turn(tokenizer)
    if end is None:
        name = getattr(tokenizer, "name_or_path", "") or "of this model"
        raise InputError(
            f"the tokenizer {name} has no end-of-sequence token, and no chat template that ends a turn; expected one, "
            "because each target ends in it"
        )
    said = [f"{lead}{target}{trail}" for target in targets]
    whole = _read(tokenizer, [text + own for text, own in zip(texts, said, strict=True)])
    tails = []
    for head, both, own in zip(heads, whole, said, strict=True):
        follows = np.array_equal(both[: len(head)], head)
        tail = both[len(head) :] if follows else _ids(tokenizer, [own])[0]
        tails.append(np.append(tail, np.int32(end)))
    return tails


def _unfinished(tokenizer, texts):
    """Token ids of texts to continue: with the special tokens added before each text, without those added after it."""
    if not texts:
        return []
    found = tokenizer(texts, return_special_tokens_mask=True)
    return [
        # An empty text has special tokens only, of which the beginning-of-sequence token is kept.
        np.asarray(ids[: max(_text_end(special), int(ids[:1] == [tokenizer.bos_token_id]))], np.int32)
        for ids, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True)
    ]


def _text_end(special):
    """Index after the last token that is not an added special token."""
    return max((i + 1 for i, added in enumerate(special) if not added), default=0)


def _ids(tokenizer, texts):
    if not texts:
        return []
    return [np.asarray(ids, np.int32) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
