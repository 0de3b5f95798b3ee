"""Tasks: what they are, where they come from, and how they become token arrays."""

import os
from collections.abc import Iterable

from modjax.data.tasks import SPLITS, Example, Task, Tasks

__all__ = ["SPLITS", "Example", "Task", "Tasks", "load"]


def load(name_or_path: str | os.PathLike, only: Iterable[str] | None = None) -> Tasks:
    """Tasks by name ("open48") or from a path, as `modjax.data.sources.load` says."""
    from modjax.data import sources

    return sources.load(name_or_path, only)
