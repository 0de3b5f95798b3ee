"""What every verb needs before and around its work: processes, compile cache, profile, and the working folder."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from modjax.errors import InputError
from modjax.files import read_json, write_json
from modjax.parallel import distributed


@contextlib.contextmanager
def start(profile: str | None) -> Iterator[None]:
    """Joins the other processes, turns the compile cache on, and traces the job where asked to."""
    distributed.start()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "modjax"))
    with jax.profiler.trace(profile) if profile else contextlib.nullcontext():
        yield


def enter(workdir: str, config: ml_collections.ConfigDict) -> pathlib.Path:
    """The working folder, made if need be, holding the resolved config.

    Raises InputError when the folder belongs to a job of another config: nothing in it is touched. Of several
    processes the first one looks, and speaks for all.
    """
    folder = pathlib.Path(workdir)
    if distributed.is_writer():
        _claim(folder, json.loads(config.to_json()))
    return folder


def _claim(folder, resolved):
    path = folder / "config.json"
    if path.exists():
        for key, had, has in _differences(read_json(path), resolved):
            raise InputError(
                f"{path}: this folder's job has {key} = {had!r}, the command {has!r}; expected the same config, or a "
                "new --workdir"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no config.json; expected a new folder or a job's own")
    else:
        write_json(path, resolved)


def _differences(had: Any, has: Any, key: str = "config") -> list[tuple[str, Any, Any]]:
    if isinstance(had, dict) and isinstance(has, dict):
        return [one for name in {**had, **has} for one in _differences(had.get(name), has.get(name), f"{key}.{name}")]
    return [] if had == has else [(key, had, has)]
