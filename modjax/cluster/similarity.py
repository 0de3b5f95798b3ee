"""Cosine similarity of experts' flattened, sparsified factors (MBC, arXiv 2405.11157, section 3.1).

MBC truncates the SVD of the matrix X[E, P] of flattened experts, of which only inner products of rows are needed. These
follow from the Gram matrix G = X X^T[E, E]: with G = U diag(sigma^2) U^T, the coordinates of the experts in the first c
components are U_c diag(sigma_c). G is summed over sites and layers, so neither X, which has 10^7 columns or more, nor a
copy of an expert is ever in memory.

At sites where the library stores A once for all experts (a[L,1,R,I] and b[L,E,R,O]) only B is compared: an A that all
experts share does not distinguish them. If each expert has its own copy of A, it is compared, and raises all cosines.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import number, whole
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.ops.linalg import kth_smallest_magnitude

Factor = tuple[str, str]  # (site, "a" or "b")


def similarity(library: Library, sparsity: float = 0.5, components: int = 64) -> jax.Array:
    """Cosine similarity of the experts' flattened factors after sparsification, float32[E, E].

    An expert whose training failed is compared by the arrays that it keeps, with a warning: to leave it out of a
    clustering would leave its tasks out of the training that follows.

    Args:
      sparsity: the quantile of its own magnitudes at or below which an expert's entries count as zero, in [0, 1).
      components: the rank that X is truncated to; no effect if there are at most that many experts.

    Raises InputError for a sparsity outside [0, 1) and for components below 1.
    """
    components = whole("components", components, least=1)
    if library.failed:
        listed = ", ".join(library.failed)
        warnings.warn(
            f"experts whose training failed are compared by the arrays that they keep: {listed}", stacklevel=2
        )
    factors = _own(library)
    blocks = [_block(library, factor) for factor in factors]
    return _similarity(blocks, _last_zeroed(library, factors, sparsity), components)


def cross_similarity(new: Library, library: Library, sparsity: float = 0.5) -> jax.Array:
    """Cosine similarity of experts of one library with those of another, float32[N, E].

    Like `similarity`, but without truncation, which would need all experts in one matrix. Each expert is sparsified by
    its own magnitudes. Where one of two experts has no factors, at a site or in the ranks beyond its own, the other's
    entries count only in its norm. At sites where either library stores A once, only B is compared.

    Raises InputError for sites with different layers or widths.
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
            raise InputError(
                f"site {factor[0]}: factors {factor[1]} {got} and {expected} do not fit one model "
                "(layers or widths differ)"
            )
    return _cross_similarity(new_blocks, new_k_N, blocks, k_E)


def _own(library) -> list[Factor]:
    """The factors that are not shared: each expert has its own."""
    sides = [(site, side) for site in library.sites for side in ("a", "b")]
    return [factor for factor in sides if _block(library, factor).shape[1] == len(library)]


def _common(first, second):
    return [factor for factor in first if factor in second]


def _block(library, factor):
    site, side = factor
    return getattr(library.loras[site], side)


def _last_zeroed(library, factors, sparsity):
    """int32[E]: the rank, by magnitude among an expert's entries in the arrays, of the last one that is set to zero.

    Padding counts: its zeros are the smallest entries, so the expert's own k-th entry comes after all of them.
    """
    sparsity = number("sparsity", sparsity, least=0, below=1)
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
    """float32[E], the norm of each sparsified expert; a tiny positive number if all entries are zero."""

    def add_layer(sum_E, layer_ERI):
        return sum_E + jnp.sum(jnp.square(_sparse(layer_ERI, threshold_E)), axis=1), None

    sums = [jax.lax.scan(add_layer, jnp.zeros(len(threshold_E)), block)[0] for block in blocks]
    return jnp.sqrt(jnp.maximum(sum(sums), jnp.finfo(jnp.float32).tiny))


def _truncate(gram_EE, components):
    if gram_EE.shape[0] <= components:
        return gram_EE
    variance_E, u_EE = _refined(gram_EE, jnp.linalg.eigh(gram_EE)[1])  # ascending order
    u_EC, variance_C = u_EE[:, -components:], jnp.maximum(variance_E[-components:], 0)
    return jnp.matmul(u_EC * variance_C[None], u_EC.T, precision="highest")


def _refined(gram_EE, u_EE):
    """Eigenvalues and eigenvectors from approximate ones, by a step of Ogita and Aishima's iteration (2018).

    Without it the error of the truncation is ten times that of float32 products, because of XLA's float32 `eigh`.
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
