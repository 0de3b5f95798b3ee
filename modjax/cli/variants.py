"""Variants of a config, the text after the colon of --config=FILE:...: names, and values as KEY=VALUE."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from modjax.cli import keys
from modjax.errors import InputError, suggestion

CLOSING = {"(": ")", "[": "]", "{": "}", "'": "'", '"': '"'}


def apply(config: ConfigDict, text: str, named: Mapping[str, Callable[[ConfigDict], None]]) -> None:
    """Applies comma-separated variants to an unlocked config in order, so that later ones win.

    Args:
      text: such as "phi2,tasks=DIR,train.batch=4"; a key may be given by its last part if that is unique.
      named: {name: function that changes the config}.

    Raises InputError for an unknown name or key, an ambiguous key, and a value of the wrong type.
    """
    for variant in split(text):
        name, equals, value = variant.partition("=")
        if equals:
            keys.assign(config, keys.find(config, name), value)
        elif name in named:
            named[name](config)
        else:
            raise InputError(f"unknown variant {name!r}; {suggestion(name, named)}")


def split(text: str) -> list[str]:
    """The parts between commas outside brackets and quotes. Raises InputError for an open bracket or quote."""
    parts, awaited = [""], []  # awaited: the closing characters of open brackets and quotes
    for character in text:
        if character == "," and not awaited:
            parts.append("")
            continue
        parts[-1] += character
        if awaited and character == awaited[-1]:
            awaited.pop()
        elif character in CLOSING and (not awaited or awaited[-1] not in "'\""):
            awaited.append(CLOSING[character])
    if awaited:
        raise InputError(f"variants {text!r}: expected {awaited[-1]} before the end")
    return [part for part in parts if part]
