"""Config files: FILE[:VARIANT,...] read to a locked config."""

import importlib.util
import inspect
import os
import sys

from ml_collections import ConfigDict

from modjax.errors import InputError


def load(text: str) -> ConfigDict:
    """The locked config that `get_config` of FILE returns for the variants after the colon, if any.

    The file may import modules of its folder. Raises InputError for a missing file and for variants that do not apply.
    """
    path, _, variants = text.partition(":")
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such config file")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path}: defines no get_config; expected a function that returns a ConfigDict")
    if variants and not inspect.signature(module.get_config).parameters:
        raise InputError(f"{path}: takes no variants; found {variants!r}")
    try:
        config = module.get_config(variants) if variants else module.get_config()
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    return config.lock()
