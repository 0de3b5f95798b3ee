"""Prompts as conversations: lists of messages with a role and a text."""

from collections.abc import Mapping, Sequence
from typing import Any

from modjax import arguments

Message = Mapping[str, Any]  # {"role", "content"}; a content is a text or a list of parts {"type": "text", "text"}
Prompt = str | Sequence[Message]  # a user message, or a conversation


def conversation(name: str, prompt: Prompt) -> list[Message]:
    """The messages of a prompt, each content as one text; a prompt that is a text is one message of the user.

    The texts of a list of parts are joined by line ends.

    Args:
      name: of the prompt, for messages of errors.

    Raises InputError for anything that is no text and no list of messages with role and text, and for no messages.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": arguments.text(name, prompt)}]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray):
        raise arguments.refused(name, prompt, "a text, a list of messages, or token ids")
    if not prompt:
        raise arguments.refused(name, prompt, "at least one message")
    return [_message(f"{name}[{i}]", message) for i, message in enumerate(prompt)]


def _message(name, message) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise arguments.refused(name, message, "a message, an object with 'role' and 'content'")
    return dict(message) | {
        "role": arguments.text(f"{name}['role']", message["role"]),
        "content": _content(f"{name}['content']", message["content"]),
    }


def _content(name, content) -> str:
    if isinstance(content, str):
        return arguments.text(name, content)
    if isinstance(content, list | tuple) and content:
        return "\n".join(_part(f"{name}[{i}]", part) for i, part in enumerate(content))
    raise arguments.refused(name, content, "a text, or a list of parts with a text; calls of tools are not read")


def _part(name, part) -> str:
    if isinstance(part, Mapping) and part.get("type", "text") == "text" and "text" in part:
        return arguments.text(f"{name}['text']", part["text"])
    raise arguments.refused(name, part, 'a part with a text, {"type": "text", "text": ...}; no other parts are read')
