"""Parsing of a command line: the flags of all verbs, those of one verb, the config file, and keys set in it."""

import contextlib
import re
from types import ModuleType
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import placeholder

from modjax.cli import config_file, keys
from modjax.errors import InputError, suggestion


class Command(NamedTuple):
    config: ConfigDict | None  # locked, with all keys set; None without --config
    flags: flags.FlagValues


def flags_of(module: ModuleType) -> flags.FlagValues:
    """The flags of a verb, not parsed: those of all verbs, then its own."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may come after other arguments
    text = "FILE[:VARIANT,KEY=VALUE,...], the config file of the job; configs/common.py has the variants"
    flags.DEFINE_string("config", None, text, values)
    flags.DEFINE_string("workdir", None, "the folder of the job; the same command resumes what it holds", values)
    if hasattr(module, "define_flags"):
        module.define_flags(values)
    if hasattr(module, "ACTIONS"):
        flags.DEFINE_enum("action", None, list(module.ACTIONS), "what to do, given as a word", values)
    flags.DEFINE_string("profile", None, "a folder for a profiler trace of the whole job", values)
    text = "HOST:PORT of the first process, where no launcher tells jax"
    flags.DEFINE_string("coordinator", None, text, values)
    flags.DEFINE_integer("processes", None, "the number of processes", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process", None, "which of them this is, from 0", lower_bound=0, flag_values=values)
    return values


def parse(verb: str, module: ModuleType, arguments: list[str]) -> Command:
    """Reads the arguments of a verb. Raises InputError for unknown and for missing ones."""
    values = flags_of(module)
    with _one_line():
        _, *rest = values([verb, *arguments], known_only=True)
    if hasattr(module, "ACTIONS"):
        rest = _act(values, module, rest)
    config = config_file.load(values.config) if values.config else None
    if config is not None:
        rest = _set(config, rest, values.config)
    if rest:
        raise InputError(_unexpected(rest[0], verb, values))
    for name in module.NEEDS:
        if values[name].value is None:
            raise InputError(f"--{name} is missing; example: {module.EXAMPLE}")
    return Command(config, values)


def _act(values, module, arguments) -> list[str]:
    """Takes the action of a verb, its first word, from the arguments; returns the others."""
    action = next((one for one in arguments if not one.startswith("-")), None)
    if action not in module.ACTIONS:
        found, known = repr(action) if action else "no action", ", ".join(module.ACTIONS)
        raise InputError(f"found {found}; expected one of {known}, as in {module.EXAMPLE}")
    values.action = action
    return [one for one in arguments if one is not action]


def _set(config, arguments, file) -> list[str]:
    """Sets the keys that --config.KEY=VALUE arguments name; returns the other arguments."""
    for argument in arguments:
        found = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if found and not keys.has(config, found[1]):
            if not keys.may_be_new(config, found[1]):
                raise InputError(f"--config.{found[1]}: no such key in {file}; {keys.hint(config, found[1])}")
            with config.unlocked():
                keys.add(config, found[1], placeholder(object))
    overrides = flags.FlagValues()
    overrides.set_gnu_getopt(True)
    with _one_line():
        config_flags.DEFINE_config_dict("config", config, "", overrides, sys_argv=["", *arguments])
        return overrides(["", *arguments], known_only=True)[1:]


@contextlib.contextmanager
def _one_line():
    """Turns errors of absl and ml_collections into InputErrors of one line."""
    try:
        yield
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split())) from error


def _unexpected(argument, verb, values):
    if not argument.startswith("-"):
        return f"unexpected argument {argument!r}; options are given as --name=value"
    name = argument.lstrip("-").partition("=")[0]
    if name.startswith("config."):
        return f"--{name} sets a key of a config; expected --config=FILE, too"
    return f"unknown flag --{name} for {verb}; {suggestion(f'--{name}', [f'--{one}' for one in values])}"
