"""What is thinned out of which expert, where: the largest entries of a matrix or of an expert, or entries at random."""

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from modjax.experts.axis import full
from modjax.experts.library import Library
from modjax.merge.entries import Above, Drawn, Largest, Thin
from modjax.merge.result import Form, shares
from modjax.ops.linalg import kth_smallest_magnitude
from modjax.ops.lora import LoRA

Trim = Literal["module", "expert"]
Side = Literal["a", "b", "product"]
Thinning = Callable[[str, Side], Thin]  # of a site and side; every array has the layer axis first


def trimmed(library: Library, density: float, trim: Trim, form: Form) -> Thinning:
    """Keeps the largest entries: a share of each matrix's, or of all that an expert has in the arrays of a form."""
    sizes = functools.partial(_sizes, library, library.ranks)
    if trim == "module":
        return lambda site, side: Largest(np.int32(np.floor(density * sizes(site, side))))
    sides = ("product",) if form == "products" else ("a", "b")
    own_E = sum(sizes(site, side).sum(axis=0) for site in library.loras for side in sides)
    find = _least_of_updates if form == "products" else _least_of_factors
    least_E = find(library, np.maximum(np.floor(density * own_E), 1).astype(np.int64))
    return lambda site, side: Above(jnp.broadcast_to(least_E[None], (library.loras[site].a.shape[0], len(library))))


def drawn(library: Library, density: float, seed: int) -> Thinning:
    """Keeps entries at random, by a key for each expert's name, site, side and layer."""
    names_E = jnp.asarray([zlib.crc32(name.encode()) for name in library.names], jnp.uint32)

    def thin(site, side):
        n_layers = library.loras[site].a.shape[0]
        place = zlib.crc32(f"{site} {side}".encode())
        return _drawn_layers(jax.random.key(seed), names_E, np.uint32(place), density, n_layers)

    return thin


def of_layer(thin_L: Thin, layer: int) -> Thin:
    """What thins one layer."""
    return jax.tree.map(lambda leaf: leaf[layer], thin_L)


def updates(library: Library, site: str) -> Iterator[jax.Array]:
    """The experts' updates of one site, over the merged expert's scale: float32[E, I, O], layer by layer."""
    a_LERI, b_LERO = library.loras[site]
    part_E = shares(library, np.ones(len(library)), "products").b
    for a_ERI, b_ERO in zip(a_LERI, b_LERO, strict=True):
        yield _dense(LoRA(a_ERI, b_ERO), part_E)


@jax.jit
def _dense(lora, part_E):
    a_ERI, b_ERO = full(lora)
    return jnp.einsum("eri,ero->eio", a_ERI, part_E[:, None, None] * b_ERO, precision="highest")


def _sizes(library, ranks, site, side) -> np.ndarray:
    """int64[L,E]: how many entries an expert has there, padding apart."""
    a, b = library.loras[site]
    if side == "product":
        return (ranks[site] > 0) * np.int64(a.shape[3] * b.shape[3])
    return ranks[site].astype(np.int64) * (a if side == "a" else b).shape[3]


def _least_of_factors(library, count_E):
    """float32[E], the count-th largest magnitude in all A and B of each expert."""
    blocks = [factor_LERX for lora in library.loras.values() for factor_LERX in full(lora)]
    padded = sum(block.size // len(library) for block in blocks)
    return jax.jit(kth_smallest_magnitude)(blocks, jnp.asarray(padded - count_E, jnp.int32))


def _least_of_updates(library, count_E):
    """float32[E], the count-th largest magnitude in all dense updates of each expert.

    Found bit by bit as `kth_smallest_magnitude` does; but the updates are formed anew for each bit, one at a time, and
    counted in 64 bits, for there may be more than 2^31 entries.
    """
    below_E = sum(library.layers * a.shape[3] * b.shape[3] for a, b in library.loras.values()) - count_E
    found_E = np.zeros(len(library), np.int32)
    for bit in reversed(range(31)):
        candidate_E = found_E | np.int32(1 << bit)
        counts = (_smaller(update, candidate_E) for site in library.loras for update in updates(library, site))
        found_E = np.where(sum(np.asarray(count_E, np.int64) for count_E in counts) > below_E, found_E, candidate_E)
    return jnp.asarray(found_E.view(np.float32))


@jax.jit
def _smaller(x_EIO, bits_E):
    """int32[E]: non-negative floats order as their bit patterns do."""
    return jnp.sum(jax.lax.bitcast_convert_type(jnp.abs(x_EIO), jnp.int32) < bits_E[:, None, None], axis=(1, 2))


@functools.partial(jax.jit, static_argnames="n_layers")
def _drawn_layers(key, names_E, place, density, n_layers):
    def one(layer, name):
        return jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(key, name), place), layer)

    keys_LE = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(n_layers), names_E)
    return Drawn(keys_LE, jnp.full(keys_LE.shape, density, jnp.float32))
