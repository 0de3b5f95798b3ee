"""How alike experts are: cosines of their flattened, sparsified factors (MBC, arXiv 2405.11157, section 3.1).

The truncated SVD of the matrix X[E, P] of flattened experts is needed only up to the inner products of its
rows, and those come from the Gram matrix G = X X^T[E, E] alone: with G = U diag(sigma^2) U^T, the coordinates of
the experts in the first c components are U_c diag(sigma_c). G is summed layer by layer of each site, so X, which has
10^7 columns and more, never exists, nor a copy of any expert.

Of experts whose A a library holds once at a site (a[L,1,R,I] beside b[L,E,R,O]) B alone is compared there. The A that
all have tells nobody apart: counted, as it is where each expert holds it, it raises every cosine by as much.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.linalg import kth_smallest_magnitude

Factor = tuple[str, str]  # (site, "a" or "b")


def similarity(library: Library, sparsity: float = 0.5, components: int = 64) -> jax.Array:
    """Cosine similarity of the experts' flattened factors after sparsification, float32[E, E].

    Args:
      sparsity: the quantile of its own magnitudes at or below which an expert's entries count as zero, in [0, 1).
      components: the rank that X is truncated to; with no more experts than that it is a mere rotation.

    Raises InputError for a sparsity out of range.
    """
    factors = _own(library)
    blocks = [_block(library, factor) for factor in factors]
    return _similarity(blocks, _last_zeroed(library, factors, sparsity), components)


def cross_similarity(new: Library, library: Library, sparsity: float = 0.5) -> jax.Array:
    """Cosine similarity of experts of one library with those of another, float32[N, E].

    As `similarity` without truncation, which would need all experts in one matrix. Each expert is sparsified by its own
    magnitudes; at a site that one of two experts lacks, and in ranks that only one has, the other's entries count in
    its length. Where either library shares its A at a site, B alone is compared.

    Raises InputError for sites of different layers or widths.
    """
    shared = {site for one in (new, library) for site in one.loras if (site, "a") not in _own(one)}
    sides = []
    for one in (new, library):
        factors = [(site, side) for site, side in _own(one) if side == "b" or site not in shared]
        sides.append(({factor: _block(one, factor) for factor in factors}, _last_zeroed(one, factors, sparsity)))
    (new_blocks, new_k_N), (blocks, k_E) = sides
    for factor in _common(new_blocks, blocks):
        got, expected = new_blocks[factor].shape, blocks[factor].shape
        if got[::3] != expected[::3]:
            raise InputError(f"site {factor[0]}: factors {factor[1]} {got} and {expected} do not fit one model")
    return _cross_similarity(new_blocks, new_k_N, blocks, k_E)


def _own(library) -> list[Factor]:
    """The factors of which every expert has its own."""
    sides = [(site, side) for site in library.sites for side in ("a", "b")]
    return [factor for factor in sides if _block(library, factor).shape[1] == len(library)]


def _common(first, second):
    return [factor for factor in first if factor in second]


def _block(library, factor):
    site, side = factor
    return getattr(library.loras[site], side)


def _last_zeroed(library, factors, sparsity):
    """int32[E]: the place, by magnitude in the library's arrays, of the last entry that an expert's quantile zeroes.

    Padded entries are zeros, hence the smallest: an expert's own k-th entry lies behind them.
    """
    if not 0 <= sparsity < 1:
        raise InputError(f"sparsity={sparsity}: expected a quantile in [0, 1)")
    ranks, widths = library.ranks, {factor: _block(library, factor).shape for factor in factors}
    own_E = sum(ranks[site].sum(axis=0) * widths[site, side][3] for site, side in factors)
    all_E = sum(layers * rank * width for layers, _, rank, width in widths.values())
    return jnp.asarray(all_E - own_E + np.floor(sparsity * np.maximum(own_E - 1, 0)).astype(int), jnp.int32)


@functools.partial(jax.jit, static_argnames="components")
def _similarity(blocks, k_E, components):
    threshold_E = kth_smallest_magnitude(blocks, k_E)
    return _cosine(_truncate(sum(_gram(block, threshold_E, block, threshold_E) for block in blocks), components))


@jax.jit
def _cross_similarity(new_blocks, new_k_N, blocks, k_E):
    new_threshold_N = kth_smallest_magnitude(list(new_blocks.values()), new_k_N)
    threshold_E = kth_smallest_magnitude(list(blocks.values()), k_E)
    gram_NE = jnp.zeros((len(new_k_N), len(k_E)))
    for factor in _common(new_blocks, blocks):
        rank = min(new_blocks[factor].shape[2], blocks[factor].shape[2])
        new_LNRI, own_LERI = (side[factor][:, :, :rank] for side in (new_blocks, blocks))
        gram_NE += _gram(new_LNRI, new_threshold_N, own_LERI, threshold_E)
    norm_N, norm_E = _norm(new_blocks.values(), new_threshold_N), _norm(blocks.values(), threshold_E)
    return gram_NE / (norm_N[:, None] * norm_E[None])


def _sparse(layer_ERI, threshold_E):
    layer_EP = layer_ERI.reshape(layer_ERI.shape[0], -1)
    return jnp.where(jnp.abs(layer_EP) > threshold_E[:, None], layer_EP, 0)


def _gram(left_LNRI, left_N, right_LERI, right_E):
    """Inner products of sparsified experts, float32[N, E], summed layer by layer."""

    def add_layer(gram_NE, layers):
        left_NP, right_EP = _sparse(layers[0], left_N), _sparse(layers[1], right_E)
        return gram_NE + jnp.matmul(left_NP, right_EP.T, precision="highest"), None

    start_NE = jnp.zeros((left_LNRI.shape[1], right_LERI.shape[1]))
    return jax.lax.scan(add_layer, start_NE, (left_LNRI, right_LERI))[0]


def _norm(blocks, threshold_E):
    """float32[E], the length of each sparsified expert; positive for one of zeros too."""

    def add_layer(sum_E, layer_ERI):
        return sum_E + jnp.sum(jnp.square(_sparse(layer_ERI, threshold_E)), axis=1), None

    sums = [jax.lax.scan(add_layer, jnp.zeros(len(threshold_E)), block)[0] for block in blocks]
    return jnp.sqrt(jnp.maximum(sum(sums), jnp.finfo(jnp.float32).tiny))


def _truncate(gram_EE, components):
    if gram_EE.shape[0] <= components:
        return gram_EE
    variance_E, u_EE = _refined(gram_EE, jnp.linalg.eigh(gram_EE)[1])  # rising order
    u_EC, variance_C = u_EE[:, -components:], jnp.maximum(variance_E[-components:], 0)
    return jnp.matmul(u_EC * variance_C[None], u_EC.T, precision="highest")


def _refined(gram_EE, u_EE):
    """Eigenvalues and eigenvectors from approximate ones, by a step of Ogita and Aishima's iteration (2018).

    The eigenvectors that XLA finds in float32 leave ten times the error that float32 products have to.
    """
    with jax.default_matmul_precision("highest"):
        rest_EE = jnp.eye(len(gram_EE)) - u_EE.T @ u_EE
        s_EE = u_EE.T @ (gram_EE @ u_EE)
        variance_E = jnp.diagonal(s_EE) / (1 - jnp.diagonal(rest_EE))
        gap_EE = variance_E[None] - variance_E[:, None]
        apart_EE = jnp.abs(gap_EE) > 1e-6 * jnp.max(jnp.abs(variance_E))
        turn_EE = (s_EE + variance_E[None] * rest_EE) / jnp.where(apart_EE, gap_EE, 1)
        return variance_E, u_EE + u_EE @ jnp.where(apart_EE, turn_EE, rest_EE / 2)


def _cosine(gram_EE):
    norm_E = jnp.sqrt(jnp.maximum(jnp.diagonal(gram_EE), jnp.finfo(jnp.float32).tiny))
    return gram_EE / (norm_E[:, None] * norm_E[None])
