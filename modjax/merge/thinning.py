"""Sparsification of experts before a merge: keeps the largest entries of each matrix, or random entries."""

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from modjax.experts.library import Library
from modjax.merge.entries import Drawn, Largest, Thin
from modjax.merge.result import scale_of, shares
from modjax.ops.lora import LoRA

Side = Literal["a", "b", "product"]
Thinning = Callable[[str, Side], Thin]  # of a site and side; every array has the layer axis first


def trimmed(library: Library, density: float) -> Thinning:
    """Keeps a share of the entries of each matrix of each expert: those of largest magnitude."""
    sizes = functools.partial(_sizes, library, library.ranks)
    return lambda site, side: Largest(np.int32(np.floor(density * sizes(site, side))))


def drawn(library: Library, density: float, seed: int) -> Thinning:
    """Keeps entries at random, with a key from each expert's name, the site, side and layer."""
    names_E = jnp.asarray([zlib.crc32(name.encode()) for name in library.names], jnp.uint32)

    def thin(site, side):
        place = zlib.crc32(f"{site} {side}".encode())
        return _drawn_layers(jax.random.key(seed), names_E, np.uint32(place), density, library.layers)

    return thin


def of_layer(thin_L: Thin, layer: int) -> Thin:
    """The thinning of one layer."""
    return jax.tree.map(lambda leaf: leaf[layer], thin_L)


def updates(library: Library, site: str) -> Iterator[jax.Array]:
    """The experts' updates of one site, divided by the merged expert's scale: float32[E, I, O], layer by layer."""
    lora = library.loras[site]
    share_LE = shares(lora, np.ones(len(library)), "products", scale_of(library)).b
    for layer in range(library.layers):
        yield _dense(LoRA(lora.a[layer], lora.b[layer], share_LE[layer]))


@jax.jit
def _dense(lora):
    a_ERI, b_ERO = lora.factors
    return jnp.einsum("eri,ero->eio", a_ERI, lora.scale[:, None, None] * b_ERO, precision="highest")


def _sizes(library, ranks, site, side) -> np.ndarray:
    """int64[L,E]: the number of entries that an expert has there, without padding."""
    lora = library.loras[site]
    if side == "product":
        return (ranks[site] > 0) * np.int64(lora.a.shape[3] * lora.b.shape[3])
    return ranks[site].astype(np.int64) * getattr(lora, side).shape[3]


@functools.partial(jax.jit, static_argnames="n_layers")
def _drawn_layers(key, names_E, place, density, n_layers):
    def one(layer, name):
        return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, name), place), layer)

    keys_LE = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(n_layers), names_E)
    return Drawn(keys_LE, jnp.full(keys_LE.shape, density, jnp.float32))
