"""Help texts: the list of verbs; a verb's purpose, flags, config keys and an example."""

import inspect
import pathlib
import re
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

import modjax
from modjax.cli import config_file
from modjax.cli.command import flags_of
from modjax.cli.comments import comments

WIDTH = 120  # of the longest line, on a terminal that is as wide
VALUE = 32  # longest value shown in full, in characters
NODE = 40  # keys of the largest node whose keys are listed
REPOSITORY = pathlib.Path(modjax.__file__).parents[1]
USAGE = "usage: modjax VERB --config=FILE[:VARIANT,KEY=VALUE,...] --workdir=DIR [--config.KEY=VALUE ...]"
SETTINGS = pathlib.Path(modjax.__file__).with_name("train") / "settings.py"  # the fields of config.train


def overview(verbs: Mapping[str, str]) -> str:
    """The verbs, each with a line of text."""
    lines = [f"  {verb:11} {text}" for verb, text in verbs.items()]
    return "\n".join([USAGE, "", *lines, "", "modjax VERB --help lists the flags and config keys of a verb."])


def of_verb(verb: str, module: ModuleType, arguments: list[str]) -> str:
    """The purpose, flags, config keys and example of a verb; the keys are those of --config, or of the example's file.

    Raises InputError for a config that cannot be read.
    """
    values = flags_of(module)
    values([verb, *(one for one in arguments if one.startswith("--config="))])
    with_config = "config" in module.NEEDS
    taken = (*module.NEEDS, *getattr(module, "TAKES", ()))
    hidden = {"action"} if with_config else {"action", "config", "workdir"} - {*taken}
    shown = [name for name in values if name not in hidden]
    parts = [
        f"{module.__doc__.strip().replace('`', '')}\n\n{inspect.getdoc(module.run)}",
        *(["actions:\n" + _table(list(module.ACTIONS.items()))] if hasattr(module, "ACTIONS") else []),
        "flags:\n" + _table([_flag(values[name], name in module.NEEDS) for name in shown]),
    ]
    if with_config:
        parts.append(_keys(values.config or _file_of(module.EXAMPLE)))
    return "\n\n".join([*parts, f"example:\n  {module.EXAMPLE}"])


def _flag(flag, needed):
    text = re.sub(r";\s+repeat this option.*", "; may be repeated", flag.help)  # added by absl
    default = "" if flag.default in (None, False, []) else f" (default: {flag.default})"
    return f"--{flag.name}", text + (" (required)" if needed else default)


def _file_of(example):
    """The config file of an example, without variants: in the current folder, or else in the repository."""
    file = re.search(r"--config=([^\s:]+)", example)[1]
    return next((str(path) for path in (pathlib.Path(file), REPOSITORY / file) if path.is_file()), None)


def _keys(file):
    if file is None:
        return "config keys: --config=FILE --help lists those of a file"
    config, path = config_file.load(file), pathlib.Path(file.partition(":")[0])
    said = {f"train.{key}": text for key, text in comments(SETTINGS).items()} | comments(path)
    rows = [(f"{key} = {_shortened(value)}", said.get(key, "")) for key, value in _listed(config)]
    return f"config keys of {file}, set by --config.KEY=VALUE or after the colon of --config:\n{_table(rows)}"


def _listed(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of all keys, values before nodes; a large or empty node is one value."""
    for name, value in sorted(config.items(), key=lambda item: isinstance(item[1], ConfigDict)):
        if isinstance(value, ConfigDict) and 0 < len(value) <= NODE:
            yield from _listed(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value.to_dict() if isinstance(value, ConfigDict) else value


def _shortened(value):
    text = repr(value)
    return text if len(text) <= VALUE else f"{text[: VALUE - 4]} ..."


def _table(rows):
    """Lines of two columns; the second is wrapped."""
    width = max(len(left) for left, _ in rows)
    rest = max(20, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns) - width - 4)
    lines = []
    for left, right in rows:
        first, *more = textwrap.wrap(right, rest) or [""]
        lines += [f"  {left:{width}}  {first}".rstrip(), *(f"{'':{width + 4}}{line}" for line in more)]
    return "\n".join(lines)
