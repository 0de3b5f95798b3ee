"""PagedLibrary: a saved library that is larger than the device, or than the host; its experts stay in their files."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
        self._entries, self._prototypes = index.entries, prototypes.arrays

    @classmethod
    def open(
        cls, path: str | os.PathLike, cache: int = 256, prototypes: str | os.PathLike | None = None
    ) -> PagedLibrary:
        """Opens a library that `Library.save` wrote, without reading its experts.

        The first time, every expert is read once, a few at a time, for its prototype; these are kept in a file.

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
        return max(info.rank for info in self.infos)

    def __len__(self) -> int:
        return len(self.infos)

    def __repr__(self) -> str:
        return f"PagedLibrary({len(self)} experts at {self.path}, at most {self.cache} in memory)"

    def __getitem__(self, chosen: str | int | slice | Sequence[str | int | bool]) -> Library:
        """The chosen experts, read from their files, in the given order; chosen as in `Library[...]`."""
        ids = selection.indices(chosen, self.names)
        return Library.of([store.read(self.path, self._entries[i]) for i in ids], self.layers)

    def resident(self, dtype: np.dtype, mesh: jax.sharding.Mesh | None) -> Resident:
        """The prototypes and the slots on the devices of a mesh, the factors in a dtype; kept for the next call."""
        if getattr(self, "_kept", None) is None or self._kept[0] != (dtype, mesh):
            self._kept = (dtype, mesh), self._resident(dtype, mesh)
        return self._kept[1]

    def _resident(self, dtype, mesh):
        def put(tree):
            return rules.everywhere(tree, mesh)

        shape = (self.layers, self.cache)
        free = Page(
            {
                site: LoRA(
                    jnp.zeros((*shape, self.rank, i), dtype), jnp.zeros((*shape, self.rank, o), dtype), jnp.zeros(shape)
                )
                for site, (i, o) in self.widths.items()
            },
            {site: jnp.zeros((*shape, i)) for site, (i, _) in self.widths.items()},
        )
        prototypes = {site: jnp.asarray(array, dtype) for site, array in self._prototypes.items()}
        return Resident(put(prototypes), Pages(put(free), self._page, put))

    def _page(self, expert: int) -> Page:
        """The arrays of one expert, zero at the sites that it does not have."""
        adapter = store.read(self.path, self._entries[expert])
        stacked = adapter.stacked(self.layers)
        loras = {site: _padded(stacked.get(site), self.layers, self.rank, *own) for site, own in self.widths.items()}
        return Page(loras, {site: np.asarray(array[:, expert]) for site, array in self._prototypes.items()})


def _padded(lora: LoRA | None, layers: int, rank: int, inputs: int, outputs: int) -> LoRA:
    """The factors of an expert at one site, with rows of zeros up to a rank."""
    a, b = np.zeros((layers, rank, inputs), np.float32), np.zeros((layers, rank, outputs), np.float32)
    if lora is None:
        return LoRA(a, b, np.zeros(layers, np.float32))
    a[:, : lora.a.shape[1]], b[:, : lora.b.shape[1]] = lora.a, lora.b
    return LoRA(a, b, lora.scale)
