"""Examples as token ids: the source in the model's chat template, then the target and the end-of-turn token."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np

from modjax.data.tasks import Example, Task
from modjax.errors import InputError

TooLong = Literal["error", "truncate"]
Prompt = str | Sequence[Mapping[str, str]]  # a user message, or a conversation of {"role", "content"} messages


class Encoded(NamedTuple):
    """One example: prompt and target in one array; the loss is on the tokens from index `n_prompt` on."""

    tokens: np.ndarray  # int32[n]
    n_prompt: int


def prompts(tokenizer: Any, sources: Iterable[Prompt | np.ndarray], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n], up to where the answer begins; sources that are token ids are not changed.

    A chat template alone decides which special tokens there are. Without a template the prompt is the source (of a
    conversation, every message) and a newline. Special tokens that the tokenizer adds before a text, such as the
    beginning-of-sequence token of Llama and Mistral, are kept; those that it adds after a text are removed.

    Args:
      tokenizer: a transformers tokenizer; may be None if all sources are token ids.
      system: the system message for prompts that have none; None leaves it to the template, which may have a default.
        Not used without a template.

    Raises InputError for messages without role and content, for messages that the template refuses, and for arrays
    that are not one row of token ids.
    """
    sources = list(sources)
    texts = [source for source in sources if not isinstance(source, np.ndarray)]
    ids = iter(_texts(tokenizer, texts, system) if texts else [])
    return [_row(source) if isinstance(source, np.ndarray) else next(ids) for source in sources]


def encode(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    length: int,
    system: str | None = None,
    too_long: TooLong = "error",
) -> list[Encoded]:
    """Prompt, target and end-of-turn token of each example, at most `length` tokens.

    Longer examples raise InputError. With too_long="truncate" their prompts are cut on the left instead, after a
    beginning-of-sequence token if there is one; a target that leaves no room for its prompt still raises InputError.
    """
    heads = prompts(tokenizer, [example.source for example in examples], system)
    tails = _ids(tokenizer, [example.target for example in examples])
    end = np.asarray([tokenizer.eos_token_id], np.int32)
    encoded = []
    for index, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        excess = len(head) + len(tail) + 1 - length
        start = int(len(head) and head[0] == tokenizer.bos_token_id)
        if excess > 0 and (too_long == "error" or excess >= len(head) - start):
            raise InputError(
                f"task {task.name!r}, {examples[index].split} example {index}: {length + excess} tokens; expected "
                f"at most {length}, the row length. Use longer rows, or truncate prompts on the left"
            )
        head = np.concatenate([head[:start], head[start + max(excess, 0) :]])
        encoded.append(Encoded(np.concatenate([head, tail, end]), len(head)))
    return encoded


def _row(tokens):
    if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"a prompt is an array of {tokens.dtype}{list(tokens.shape)}; expected token ids, int32[n]")
    return tokens.astype(np.int32)


def _texts(tokenizer, sources, system):
    conversations = [_messages(source) for source in sources]
    if tokenizer.chat_template:
        return _ids(tokenizer, [_render(tokenizer, messages, system) for messages in conversations])
    return _unfinished(tokenizer, ["".join(one["content"] + "\n" for one in messages) for messages in conversations])


def _messages(source: Prompt) -> list[Mapping[str, str]]:
    if isinstance(source, str):
        return [{"role": "user", "content": source}]
    for message in source:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise InputError(f"message {message!r}: expected an object with 'role' and 'content'")
    return list(source)


def _render(tokenizer, messages, system):
    if system is not None and all(message["role"] != "system" for message in messages):
        messages = [{"role": "system", "content": system}, *messages]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"the model's chat template refuses messages of roles {roles} ({error})") from error


def _unfinished(tokenizer, texts):
    """Token ids of texts to continue: with the special tokens added before each text, without those added after it."""
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
