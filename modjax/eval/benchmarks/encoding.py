"""Token ids of contexts and continuations, equal to those of lm-evaluation-harness.

    spaces at the end of the context move to the continuation
    context and continuation are read as one text; what it has after the context's number of tokens is the target
    more tokens than the model reads: the first ones are dropped

Text is plain, with the special tokens that the tokenizer adds of itself, as the beginning-of-sequence token of Llama.
With `chat`, a context is what the user says in the model's chat template, and a continuation the reply's beginning.
"""

import numpy as np

from modjax.data.template import render
from modjax.data.tokenize import Encoded
from modjax.errors import InputError
from modjax.model import Model


def pair(model: Model, context: str, continuation: str, chat: bool = False) -> Encoded:
    """Context and continuation, which begins with its space, as prompt and target.

    Raises InputError where the continuation has no token of its own, or more than the model reads.
    """
    context, special = _prompt(model, context, chat)
    kept = context.rstrip()
    head = _ids(model, kept, special)
    tail = _ids(model, context + continuation, special)[len(head) :]
    excess = max(len(head) + len(tail) - model.config.reach, 0)
    if not len(tail) or excess >= len(head):
        raise InputError(
            f"the continuation {continuation!r:.80} has {len(tail)} tokens after its context of {len(head)}; expected "
            f"at least one of each within the context of {model.name}, {model.config.reach}"
        )
    return Encoded(np.concatenate([head[excess:], tail]), len(head) - excess)


def prompt(model: Model, text: str, max_new_tokens: int, chat: bool = False) -> np.ndarray:
    """int32[n], a prompt with room for its answer. Raises InputError where the context has no room for any."""
    room = model.config.reach - max_new_tokens
    if room < 1:
        raise InputError(f"answers of {max_new_tokens} tokens: expected fewer than the context of {model.name}")
    return _ids(model, *_prompt(model, text, chat))[-room:]


def _prompt(model, text, chat) -> tuple[str, bool]:
    """The text that the model reads, and whether the tokenizer adds its special tokens."""
    if model.tokenizer is None:
        raise InputError(f"{model.name}: the checkpoint has no tokenizer; expected one, to read text")
    if not chat:
        return text, True
    if not model.tokenizer.chat_template:
        raise InputError(f"chat=True: the tokenizer of {model.name} has no chat template")
    return render(model.tokenizer, [{"role": "user", "content": text}]), False


def _ids(model, text, special) -> np.ndarray:
    return np.asarray(model.tokenizer(text, add_special_tokens=special)["input_ids"], np.int32)
