"""Digests of a study's inputs, so that a kept result is reused only for exactly the inputs that it was made of."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from modjax.data.tasks import Tasks
from modjax.eval.sample import Sample
from modjax.experts.index import INDEX
from modjax.experts.library import Library
from modjax.model import Model


def of_study(
    model: Model, tasks: Tasks, settings: Mapping[str, Any], sample: Sample, max_new_tokens: int | None = None
) -> dict[str, Any]:
    """The inputs that studies have in common, as plain data: digests of the model and the tasks, and settings."""
    return {
        "model": model.fingerprint,
        "tasks": of_tasks(tasks),
        "train": dict(settings),
        "sample": dataclasses.asdict(sample),
        "max_new_tokens": max_new_tokens,
    }


def of_library(library: Library | str | pathlib.Path) -> str:
    """The digest of a library in memory, or of a folder by its library.json, which holds that of each expert's file."""
    if not isinstance(library, Library):
        return of_file(pathlib.Path(library) / INDEX)
    digest = hashlib.sha256(repr(library.infos).encode())
    for path, leaf in jax.tree.leaves_with_path(library.loras):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def of_tasks(tasks: Tasks) -> str:
    """The digest of all examples, and of what is known of their tasks."""
    return _of_text(json.dumps([dataclasses.asdict(task) for task in tasks.values()]))


def of_file(path: pathlib.Path) -> str:
    """The digest of a file; "" if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def of_folder(path: str | pathlib.Path) -> str:
    """A digest of the names, sizes and times of a folder's files, for weights that are too large to be read for it.

    A file counts as a folder of itself alone; a path where nothing is, as an empty folder.
    """
    root = pathlib.Path(path)
    files = sorted(file for file in (root, *root.rglob("*")) if file.is_file())
    known = [(str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return _of_text(json.dumps(known))


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
