"""Examples as token ids: the model's own chat template around the source, then the target and the end of turn."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from modjax.data.tasks import Example, Task
from modjax.errors import InputError

TooLong = Literal["error", "truncate"]


class Encoded(NamedTuple):
    """One example: prompt and target in one array; the loss counts the tokens from `n_prompt` on."""

    tokens: np.ndarray  # int32[n]
    n_prompt: int


def prompts(tokenizer: Any, sources: Iterable[str], system: str | None = None) -> list[np.ndarray]:
    """Token ids of each prompt, int32[n], ready for the model to answer.

    Args:
      tokenizer: a transformers tokenizer. Without a chat template the prompt is the source and a newline.
      system: the system message; None leaves it to the template, which may bring its own.
    """
    return _ids(tokenizer, [_render(tokenizer, source, system) for source in sources])


def encode(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    length: int,
    system: str | None = None,
    too_long: TooLong = "error",
) -> list[Encoded]:
    """Prompt, target and end-of-turn token of each example, at most `length` tokens.

    Longer examples raise InputError, or lose the left end of their prompt with too_long="truncate".
    """
    heads = prompts(tokenizer, [example.source for example in examples], system)
    tails = _ids(tokenizer, [example.target for example in examples])
    end = np.asarray([tokenizer.eos_token_id], np.int32)
    encoded = []
    for index, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        excess = len(head) + len(tail) + 1 - length
        if excess > 0 and (too_long == "error" or excess >= len(head)):
            raise InputError(
                f"task {task.name!r}, {examples[index].split} example {index}: {length + excess} tokens; expected "
                f"at most {length}, the row length. Give longer rows, or truncate prompts from the left"
            )
        head = head[max(excess, 0) :]
        encoded.append(Encoded(np.concatenate([head, tail, end]), len(head)))
    return encoded


def _render(tokenizer, source, system):
    if not tokenizer.chat_template:
        return source + "\n"
    messages = [{"role": "user", "content": source}]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def _ids(tokenizer, texts):
    if not texts:
        return []
    return [np.asarray(ids, np.int32) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
