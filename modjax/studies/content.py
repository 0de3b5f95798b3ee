"""The inputs of a study's results, as plain data with digests, so that results are reused only for the same inputs."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from modjax import digest
from modjax.data.tasks import Tasks
from modjax.eval.sample import Sample
from modjax.experts.index import INDEX
from modjax.experts.library import Library
from modjax.model import Model


def of_study(
    model: Model, tasks: Tasks, settings: Mapping[str, Any], sample: Sample, max_new_tokens: int | None = None
) -> dict[str, Any]:
    """The inputs that studies have in common."""
    scored = {"sample": dataclasses.asdict(sample), "max_new_tokens": max_new_tokens}
    return of_training(model, tasks, settings) | scored


def of_training(model: Model, tasks: Tasks, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of every training on these tasks."""
    return {"train": dict(settings), **of_tasks(tasks), "model": model.content}


def of_tasks(tasks: Tasks) -> dict[str, Any]:
    """The tasks and their order, which that of experts follows."""
    return {"tasks": tasks.fingerprints, "order": list(tasks)}


def of_library(library: Library | str | pathlib.Path) -> str:
    """The digest of a library in memory, or of a folder by its library.json, which holds that of each expert's file."""
    if isinstance(library, Library):
        return library.fingerprint
    return digest.of_file(pathlib.Path(library) / INDEX)
