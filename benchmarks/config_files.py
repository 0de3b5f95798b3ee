"""The files of configs/, as modules."""

import importlib
import pathlib
import sys
import types

FOLDER = pathlib.Path(__file__).parents[1] / "configs"


def module(name: str) -> types.ModuleType:
    """configs/NAME.py, which imports what it shares with others from its own folder."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(name)
