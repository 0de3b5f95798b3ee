"""Examples as token ids: the model's own chat template around the source, then the target and the end of turn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jinja2
import numpy as np

from modjax.data.tasks import Example, Task
from modjax.errors import InputError

TooLong = Literal["error", "truncate"]
Prompt = str | Sequence[Mapping[str, str]]  # what the user says, or a conversation of {"role", "content"} messages


class Encoded(NamedTuple):
    """One example: prompt and target in one array; the loss counts the tokens from `n_prompt` on."""

    tokens: np.ndarray  # int32[n]
    n_prompt: int


def prompts(tokenizer: Any, sources: Iterable[Prompt | np.ndarray], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n], ready for the model to answer; token ids among the sources stay as they are.

    With a chat template that alone says which special tokens there are. Without one the prompt is the source (of a
    conversation every message) and a newline, behind what the tokenizer puts before a text by itself, as Llama's and
    Mistral's put their beginning-of-sequence token; an end-of-sequence token that it puts behind is left off.

    Args:
      tokenizer: a transformers tokenizer; None will do where all sources are token ids.
      system: the system message of prompts that bring none; None leaves it to the template, which may have its own.
        Without a template there is no system message.

    Raises InputError for messages without role and content, for those that the template refuses, and for arrays that
    are no row of token ids.
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

    Longer examples raise InputError, or lose the left end of their prompt with too_long="truncate", but for a
    beginning-of-sequence token.
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
                f"at most {length}, the row length. Give longer rows, or truncate prompts from the left"
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
    return _begun(tokenizer, ["".join(one["content"] + "\n" for one in messages) for messages in conversations])


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


def _begun(tokenizer, texts):
    """The ids of texts that go on: with the special tokens before them and without those behind."""
    found = tokenizer(texts, return_special_tokens_mask=True)
    return [
        np.asarray(ids[: max(_behind(special), int(ids[:1] == [tokenizer.bos_token_id]))], np.int32)
        for ids, special in zip(found["input_ids"], found["special_tokens_mask"], strict=True)
    ]


def _behind(special):
    """One more than the index of the last token that is the text's own."""
    return max((i + 1 for i, added in enumerate(special) if not added), default=0)


def _ids(tokenizer, texts):
    if not texts:
        return []
    return [np.asarray(ids, np.int32) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
