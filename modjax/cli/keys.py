"""Keys of a config by their dotted names, such as train.batch: to list, to find, and to set from text."""

import ast
import difflib
from typing import Any

from ml_collections import ConfigDict

from modjax.errors import InputError

OPEN = "method"  # keys below a node of this name may be new: every router and merge has its own options


def leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{key: value} of all keys that have a value, also those inside nodes."""
    found = {}
    for name, value in config.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else {f"{prefix}{name}": value}
    return found


def has(config: ConfigDict, key: str) -> bool:
    """Whether a key exists, as a value or as a node."""
    *outer, last = key.split(".")
    node = _node(config, outer)
    return node is not None and last in node


def may_be_new(config: ConfigDict, key: str) -> bool:
    """Whether a key that does not exist may be added: below a node named OPEN, or in an empty node."""
    below = False
    for name in key.split(".")[:-1]:
        if name not in config:
            return below
        config, below = config[name], below or name == OPEN
        if not isinstance(config, ConfigDict):
            return False
    return below or not len(config)


def add(config: ConfigDict, key: str, value: Any) -> None:
    """Adds a new key, and the nodes above it."""
    *outer, last = key.split(".")
    for name in outer:
        if name not in config:
            config[name] = ConfigDict()
        config = config[name]
    config[last] = value


def find(config: ConfigDict, name: str) -> str:
    """The key of a name: itself if it is dotted or at the top level, else the only key that ends in it.

    An unknown name is returned unchanged. Raises InputError if several keys end in it.
    """
    if "." in name or name in config:
        return name
    found = [key for key in leaves(config) if _last(key) == name]
    if len(found) > 1:
        raise InputError(f"config key {name!r} is ambiguous; expected one of {', '.join(found)}")
    return found[0] if found else name


def assign(config: ConfigDict, key: str, text: str) -> None:
    """Sets a key from text: a Python literal if it is one, else a string.

    Raises InputError for a key that does not exist and may not be added, and for a value whose type does not fit the
    current one. An int fits a float, a single value fits a tuple, None fits a key whose value is None.
    """
    if has(config, key):
        *outer, last = key.split(".")
        node = _node(config, outer)
        node[last] = _fitted(text, node[last], node.get_type(last), key)
    elif may_be_new(config, key):
        add(config, key, literal(text))
    else:
        raise InputError(f"unknown config key {key!r}; {hint(config, key)}")


def hint(config: ConfigDict, key: str) -> str:
    """The end of an error about an unknown key: the one with the nearest last part, else all keys of its node."""
    known = list(leaves(config))
    if last := difflib.get_close_matches(_last(key), map(_last, known), n=1):
        nearest = difflib.get_close_matches(key, [one for one in known if _last(one) == last[0]], n=1, cutoff=0)
        return f"did you mean {nearest[0]!r}?"
    outer = key.split(".")[:-1]
    node = _node(config, outer)
    names = config if node is None else [".".join([*outer, name]) for name in node]
    return f"expected one of {', '.join(names)}"


def _last(key):
    return key.rpartition(".")[2]


def _node(config, names) -> ConfigDict | None:
    """The node at the end of a path of names, or None."""
    for name in names:
        if name not in config or not isinstance(config[name], ConfigDict):
            return None
        config = config[name]
    return config


def literal(text: str) -> Any:
    """The value of a Python literal; other texts as they are."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _fitted(text, present, kind, key):
    """The value of a text for a key whose current value has type `kind`."""
    value = literal(text)
    if kind is str and not isinstance(value, str | None):
        return text  # a name that looks like a number
    if isinstance(present, ConfigDict) and isinstance(value, dict):
        return ConfigDict(value)
    if kind is tuple:
        return tuple(value) if isinstance(value, list | tuple) else (value,)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind or kind in (object, type(None)) or (value is None and present is None):
        return value
    raise InputError(f"{key} = {text!r}; expected {kind.__name__}")
