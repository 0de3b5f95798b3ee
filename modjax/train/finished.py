"""Experts whose training has ended: their results on the host, and files that a resumed run reads them from.

finished/
  0.safetensors   the `Result` of the first expert; written before the first checkpoint without the expert
"""

import pathlib
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy

from modjax import digest
from modjax.files import os_errors, replace

FOLDER = "finished"
DIGEST = 8  # bytes


class Result(NamedTuple):
    """What training made of one expert."""

    trained: Any  # its last arrays whose loss was finite; with early stopping those of its best validation
    lowest: np.ndarray  # float32, its lowest validation loss, or minus its highest Rouge-L; inf if never validated
    failed: np.ndarray  # int32, the step, from 1, at which a loss or gradient was not finite; 0: none
    steps: np.ndarray  # int32, steps done


class Finished:
    """The results of those of E experts that have ended."""

    def __init__(self, n_experts: int, folder: pathlib.Path | None):
        self.results: dict[int, Result] = {}
        self.digest_E = np.zeros((n_experts, DIGEST), np.uint8)  # of the files; 0: not written
        self._folder = folder

    def write(self) -> list[str]:
        """Writes the results that have no file yet; returns the digests of these files, to be given to `written`."""
        return [self._write(expert) for expert in self._new]

    def written(self, digests: Sequence[str]) -> None:
        """Notes the digests of the files that `write` has written, on this or another process."""
        for expert, found in zip(self._new, digests, strict=True):
            self.digest_E[expert] = list(bytes.fromhex(found))

    def read(self, digest_E: np.ndarray, trained: Any) -> None:
        """Reads the results whose files have these digests; a damaged one is left out, with a warning.

        trained: arrays of the structure of the trained arrays.
        """
        paths, structure = jax.tree.flatten_with_path(Result(trained, 0, 0, 0))
        for expert in np.flatnonzero(digest_E.any(axis=1)).tolist():
            path = self._path(expert)
            if digest.of_file(path) != bytes(digest_E[expert]).hex():
                warnings.warn(f"{path}: is missing or damaged; its expert is trained again", stacklevel=2)
                continue
            arrays = safetensors.numpy.load_file(path)
            leaves = [arrays[jax.tree_util.keystr(place)] for place, _ in paths]
            self.results[expert] = jax.tree.unflatten(structure, leaves)
            self.digest_E[expert] = digest_E[expert]

    @property
    def _new(self):
        return [expert for expert in self.results if not self.digest_E[expert].any()]

    def _write(self, expert):
        path, leaves = self._path(expert), jax.tree.leaves_with_path(self.results[expert])
        arrays = {jax.tree_util.keystr(place): np.asarray(leaf, order="C") for place, leaf in leaves}
        with os_errors(path, "written"):
            replace(path, safetensors.numpy.save(arrays))
        return digest.of_file(path)

    def _path(self, expert):
        return self._folder / FOLDER / f"{expert}.safetensors"
