"""Tasks: their examples, their sources, and their conversion to token arrays."""

import os
from collections.abc import Iterable

from modjax.data.example import Example
from modjax.data.splits import SPLITS
from modjax.data.tasks import Task, Tasks

__all__ = ["SPLITS", "Example", "Task", "Tasks", "load"]


def load(name_or_path: str | os.PathLike, only: Iterable[str] | None = None) -> Tasks:
    """Tasks by name ("open48") or from a path; see `modjax.data.sources.load`."""
    from modjax.data import sources

    return sources.load(name_or_path, only)
