"""PagedLibrary: a saved library that is larger than the device, or than the host; its experts stay in their files."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from modjax import arguments
from modjax.experts import prototype_file, selection, store
from modjax.experts.index import PROTOTYPES, Index
from modjax.experts.info import ExpertInfo
from modjax.experts.library import Library
from modjax.experts.pages import Pages
from modjax.experts.prototype_file import Prototypes
from modjax.ops.lora import LoRA, Loras
from modjax.parallel import rules


class Page(NamedTuple):
    """The arrays of one expert, {site: [L,...]}, or those of all slots, {site: [L,S,...]}."""

    loras: Loras
    prototypes: dict[str, jax.Array]  # float32[L,I]


class Resident(NamedTuple):
    """What a device holds of a paged library."""

    prototypes: dict[str, jax.Array]  # {site: [L,E,I]} of all experts, in the dtype of the weights
    pages: Pages  # of `Page`


class PagedLibrary:
    """A saved library whose experts are read from their files when they are used.

    In memory are the infos of all experts, their prototypes, and the `cache` experts that were used last. Routers of
    `modjax.routing.two_stage` choose a few candidates for each prompt; `paged[names]` is a `Library` of a few experts.

    Attributes:
      path: the folder that `Library.save` wrote.
      infos: one ExpertInfo per expert.
      layers: the number of layers of the base model.
      widths: {site: (input, output)}.
      cache: the most experts in memory at once.
    """

    def __init__(self, path: pathlib.Path, index: Index, prototypes: Prototypes, cache: int):
        """See `open`."""
        self.path, self.cache, self.layers = path, min(cache, len(index.entries)), index.layers
        self.infos: tuple[ExpertInfo, ...] = tuple(entry.info for entry in index.entries)
        self.widths = prototypes.widths
        self._index, self._prototypes = index, prototypes.arrays
        self._kept: tuple[np.dtype, jax.sharding.Mesh | None, Resident] | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike, cache: int = 256, prototypes: str | os.PathLike | None = None
    ) -> PagedLibrary:
        """Opens a library that `Library.save` wrote, without reading its experts.

        The first time, every expert is read once, one at a time, for its prototype; these are kept in a file.

        Args:
          cache: the most experts in memory at once.
          prototypes: the file of the prototypes, made if it is missing or was made of other experts; by default
            prototypes.safetensors in the library's folder.

        Raises InputError as `Library.load`, and if the file of the prototypes cannot be written. An expert's file is
        checked against its hash each time it is read.
        """
        path, cache = arguments.path("path", path), arguments.whole("cache", cache, least=1)
        file = path / PROTOTYPES if prototypes is None else arguments.path("prototypes", prototypes)
        index = store.listed(path)
        return cls(path, index, prototype_file.opened(path, index, file), cache)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos)

    @property
    def rank(self) -> int:
        """The largest rank of an expert, which all are padded to."""
        return self._index.rank

    def __len__(self) -> int:
        return len(self.infos)

    def __repr__(self) -> str:
        return f"PagedLibrary({len(self)} experts at {self.path}, at most {self.cache} in memory)"

    def __getitem__(self, chosen: str | int | slice | Sequence[str | int | bool]) -> Library:
        """The chosen experts, read from their files, in the given order; chosen as in `Library[...]`."""
        ids = selection.indices(chosen, self.names)
        return Library.of([store.read(self.path, self._index.entries[i]) for i in ids], self.layers)

    def resident(self, dtype: np.dtype, mesh: jax.sharding.Mesh | None) -> Resident:
        """The prototypes and the slots on the devices of a mesh, the factors in a dtype; kept for the next call."""
        if self._kept is None or self._kept[:2] != (dtype, mesh):
            self._kept = (dtype, mesh, self._resident(dtype, mesh))
        return self._kept[2]

    def _resident(self, dtype, mesh):
        def put(tree):
            return rules.everywhere(tree, mesh)

        def by_layer(array_ELI):
            return rules.put(np.asarray(array_ELI.swapaxes(0, 1), dtype, order="C"), P(), mesh)

        prototypes = {site: by_layer(array_ELI) for site, array_ELI in self._prototypes.items()}
        return Resident(prototypes, Pages(self._empty(dtype), self.cache, self._page, put))

    def _page(self, expert: int) -> Page:
        """The arrays of one expert; zeros at the sites that it does not have."""
        loras = store.read(self.path, self._index.entries[expert]).stacked(self.layers, self.rank)
        prototypes = {site: array[expert] for site, array in self._prototypes.items()}
        return Page(self._empty(np.float32).loras | loras, prototypes)

    def _empty(self, dtype: np.dtype) -> Page:
        """A page of zeros, with factors in a dtype."""

        def zeros(*shape, dtype=np.float32):
            return np.zeros((self.layers, *shape), dtype)

        loras = {
            site: LoRA(*(zeros(self.rank, width, dtype=dtype) for width in widths), zeros())
            for site, widths in self.widths.items()
        }
        return Page(loras, {site: zeros(inputs) for site, (inputs, _) in self.widths.items()})
