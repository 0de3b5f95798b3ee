"""Chat templates: conversations as the text that the model reads, and how a template surrounds an answer."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from modjax.data.messages import Message
from modjax.errors import InputError

QUESTION = {"role": "user", "content": "What is asked?"}
REPLY = {"role": "assistant", "content": "What-is-replied"}


class Turn(NamedTuple):
    """The text around an answer after the generation prompt: lead, answer, trail, end."""

    lead: str  # white space, such as the space of Llama 2 after [/INST]
    trail: str  # what comes before the end token, mostly nothing
    end: int | None  # the token that ends the turn; None if there is none


def render(tokenizer: Any, messages: Sequence[Message], answered: bool = False) -> str:
    """The text of a conversation, with the beginning of the next answer unless it is answered already.

    Raises InputError for messages that the template refuses.
    """
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
    except Exception as error:  # a template is a program of the checkpoint, which may raise anything
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"the model's chat template refuses messages of roles {roles} ({error})") from error


def turn(tokenizer: Any) -> Turn:
    """How the tokenizer's chat template surrounds an answer, found by rendering short conversations.

    A turn ends in the first special or added token after the answer, if it is the same at the end of a conversation
    and in its middle, as far as the template takes both. Where there is no such token, and without a template, a turn
    ends in the tokenizer's end-of-sequence token.
    """
    if not tokenizer.chat_template:
        return Turn("", "", tokenizer.eos_token_id)
    prompt, last, middle = (
        _rendered(tokenizer, messages, answered)
        for messages, answered in (([QUESTION], False), ([QUESTION, REPLY], True), ([QUESTION, REPLY, QUESTION], True))
    )
    before = _around_reply(last or middle)[0]
    lead = before.removeprefix(prompt) if prompt and before.startswith(prompt) else ""
    found = {_first_special(tokenizer, _around_reply(text)[1]) for text in (last, middle) if text}
    trail, end = found.pop() if len(found) == 1 else ("", None)
    if end is None:
        trail, end = "", tokenizer.eos_token_id
    return Turn(lead if lead.isspace() else "", trail, end)


def _rendered(tokenizer, messages, answered) -> str:
    """The text of a conversation, or nothing where the template refuses it."""
    try:
        return render(tokenizer, messages, answered)
    except InputError:
        return ""


def _around_reply(text) -> tuple[str, str]:
    """The text before the reply and after it; nothing if the template does not write the reply."""
    before, reply, after = text.rpartition(REPLY["content"])
    return (before, after) if reply else ("", "")


def _first_special(tokenizer, text) -> tuple[str, int | None]:
    """The text before the first special or added token, and the token's id; None if there is no such token."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    known = sorted({one for one in [*added, *tokenizer.all_special_tokens] if one.strip()}, key=len, reverse=True)
    found = re.search("|".join(map(re.escape, known)), text) if known else None
    return (text, None) if found is None else (text[: found.start()], tokenizer.convert_tokens_to_ids(found.group()))
