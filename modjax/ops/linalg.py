"""Linear algebra of low-rank products and of small similarity matrices."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from modjax.ops.lora import Factors


class LowRankSVD(NamedTuple):
    """dW = sum_r s_r u_r v_r^T, singular values in descending order."""

    u: jax.Array  # [..., R, O]
    s: jax.Array  # [..., R]
    v: jax.Array  # [..., R, I]


def low_rank_svd(factors: Factors) -> LowRankSVD:
    """The exact thin SVD of B^T A for a[..., R, I], b[..., R, O], without forming the O x I product.

    A^T = Q_a R_a and B^T = Q_b R_b, so B^T A = Q_b (R_b R_a^T) Q_a^T: the SVD of an R x R core, rotated back.
    Batched over all leading axes, in float32. Only matrix products and rotations are used: batches of tiny LAPACK
    calls are slow on accelerators, and jaxlib 0.10.2 deadlocked in them on a CPU with two threads. Where s is 0, u is 0
    too, and v is 0 for the directions that A lacks if its rank is below R.
    """
    with jax.default_matmul_precision("highest"):
        q_a = _orthonormal_rows(factors.a.astype(jnp.float32))
        q_b = _orthonormal_rows(factors.b.astype(jnp.float32))
        r_a = jnp.einsum("...ri,...si->...rs", q_a, factors.a)
        r_b = jnp.einsum("...ri,...si->...rs", q_b, factors.b)
        u, s, v = _jacobi_svd(jnp.einsum("...rs,...ts->...rt", r_b, r_a))
        return LowRankSVD(jnp.einsum("...rs,...rd->...sd", u, q_b), s, jnp.einsum("...rs,...rd->...sd", v, q_a))


def leading(factors: Factors) -> tuple[jax.Array, jax.Array]:
    """The first right singular vector of B^T A, float32[..., I], and its singular value, float32[...]; 0 where that is.

    From the Gram matrices of the factors, which are read twice in all: with A A^T = L_a L_a^T and B B^T = L_b L_b^T the
    singular values are those of L_b^T L_a, and a left singular vector u of it gives A^T L_b u. The error grows with the
    square of |A| |B| / |B^T A|: if that is above 10 anywhere, all are computed by `low_rank_svd`.
    """
    with jax.default_matmul_precision("highest"):
        (l_a, norm_a), (l_b, norm_b) = (_root(factor.astype(jnp.float32)) for factor in factors)
        u, _, _ = _jacobi_svd(jnp.einsum("...rs,...rt->...st", l_b, l_a))
        v = jnp.einsum("...r,...ri->...i", jnp.einsum("...rs,...s->...r", l_b, u[..., 0]), factors.a)
    s, bound = jnp.linalg.norm(v, axis=-1), norm_a * norm_b
    sure = (s >= bound / 10) | (bound == 0)

    def by_svd():
        found = low_rank_svd(factors)
        return found.v[..., 0, :], found.s[..., 0]

    return jax.lax.cond(jnp.all(sure), lambda: (v / jnp.where(s == 0, 1, s)[..., None], s), by_svd)


def _root(x_RD):
    """L[R, R] with L L^T = x x^T, and the largest singular value of x."""
    gram_RR = jnp.einsum("...ri,...si->...rs", x_RD, x_RD)
    size = jnp.maximum(jnp.trace(gram_RR, axis1=-2, axis2=-1), jnp.finfo(jnp.float32).tiny)
    u, s, _ = _jacobi_svd(gram_RR / size[..., None, None])
    root_R = jnp.sqrt(size)[..., None] * jnp.sqrt(s)
    return u * root_R[..., None, :], root_R[..., 0]


def _orthonormal_rows(x_RD):
    """Gram-Schmidt, twice per row, which is as orthogonal as Householder reflections; dependent rows become 0."""

    def orthonormalise(r, q_RD):
        row_D = x_D = jax.lax.dynamic_index_in_dim(x_RD, r, axis=-2, keepdims=False)
        for _ in range(2):
            row_D = row_D - jnp.einsum("...rd,...r->...d", q_RD, jnp.einsum("...rd,...d->...r", q_RD, row_D))
        norm, original = (jnp.linalg.norm(one, axis=-1, keepdims=True) for one in (row_D, x_D))
        row_D = jnp.where(norm > 1e-6 * original, row_D / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny), 0)
        return jax.lax.dynamic_update_index_in_dim(q_RD, row_D, r, axis=q_RD.ndim - 2)

    return jax.lax.fori_loop(0, x_RD.shape[-2], orthonormalise, jnp.zeros_like(x_RD))


def _jacobi_svd(m_RR, sweeps: int = 12):
    """u, s, v with m = u diag(s) v^T, by one-sided Jacobi: columns are rotated in pairs until all are orthogonal.

    (Golub & Van Loan, Matrix Computations, 8.6.3.)
    """
    rank = m_RR.shape[-1]
    pairs = jnp.tile(jnp.stack(jnp.triu_indices(rank, 1), axis=1), (sweeps, 1))

    def rotate(carry, pair):
        p, q = pair
        m_p, m_q = carry[0][..., p], carry[0][..., q]
        overlap = jnp.sum(m_p * m_q, axis=-1)
        ratio = (jnp.sum(m_q * m_q, axis=-1) - jnp.sum(m_p * m_p, axis=-1)) / jnp.where(overlap == 0, 1, 2 * overlap)
        tangent = jnp.where(ratio < 0, -1, 1) / (jnp.abs(ratio) + jnp.sqrt(1 + ratio * ratio))
        tangent = jnp.where(overlap == 0, 0, tangent)
        cosine = jax.lax.rsqrt(1 + tangent * tangent)[..., None]
        sine = cosine * tangent[..., None]

        def turn(x):
            x_p, x_q = x[..., p], x[..., q]
            return x.at[..., p].set(cosine * x_p - sine * x_q).at[..., q].set(sine * x_p + cosine * x_q)

        return tuple(map(turn, carry)), None

    v_RR = jnp.broadcast_to(jnp.eye(rank, dtype=m_RR.dtype), m_RR.shape)
    (m_RR, v_RR), _ = jax.lax.scan(rotate, (m_RR, v_RR), pairs)
    s_R = jnp.linalg.norm(m_RR, axis=-2)
    order = jnp.argsort(-s_R, axis=-1)
    s_R = jnp.take_along_axis(s_R, order, axis=-1)
    m_RR, v_RR = (jnp.take_along_axis(x, order[..., None, :], axis=-1) for x in (m_RR, v_RR))
    return m_RR / jnp.where(s_R == 0, 1, s_R)[..., None, :], s_R, v_RR


def leading_of_sum(kernel_IO: jax.Array, factors: Factors) -> tuple[jax.Array, jax.Array]:
    """The first right singular vector of W^T + B_e^T A_e for each e, and its singular value: float32[E,I], float32[E].

    W is [I,O], a[E or 1,R,I] and b[E,R,O]. The sums are never formed. A block of four vectors is extended to a Krylov
    space by products with the sums and their transposes, the best four vectors in it are found (Rayleigh-Ritz), and the
    search restarts from these, until the first changes by at most 1e-6 or 64 times (Golub and Van Loan, Matrix
    Computations, 10.3).
    """
    width, n_experts = min(4, *kernel_IO.shape), factors.b.shape[0]
    depth = min(4 * width, *kernel_IO.shape)
    a_ERI = jnp.broadcast_to(factors.a, (n_experts, *factors.a.shape[1:]))

    def apply(v_EKI):
        z_EKR = jnp.einsum("eki,eri->ekr", v_EKI, a_ERI)
        return jnp.einsum("eki,io->eko", v_EKI, kernel_IO) + jnp.einsum("ekr,ero->eko", z_EKR, factors.b)

    def apply_transposed(u_EKO):
        z_EKR = jnp.einsum("eko,ero->ekr", u_EKO, factors.b)
        return jnp.einsum("eko,io->eki", u_EKO, kernel_IO) + jnp.einsum("ekr,eri->eki", z_EKR, a_ERI)

    def search(carry):
        block_EKI, _, _, i = carry
        blocks = [block_EKI]
        while len(blocks) * width < depth:
            blocks.append(_orthonormal_rows(apply_transposed(apply(blocks[-1]))))
        basis_EKI = _orthonormal_rows(jnp.concatenate(blocks, axis=1))
        found = low_rank_svd(Factors(basis_EKI, apply(basis_EKI)))
        overlap_E = jnp.sum(found.v[:, 0] * block_EKI[:, 0], axis=-1)
        change = jnp.abs(found.v[:, 0] - jnp.where(overlap_E < 0, -1, 1)[:, None] * block_EKI[:, 0]).max()
        return found.v[:, :width], found.s[:, 0], change, i + 1

    with jax.default_matmul_precision("highest"):
        start_KI = jax.random.normal(jax.random.key(0), (width, kernel_IO.shape[0]))
        start_EKI = jnp.broadcast_to(_orthonormal_rows(start_KI), (n_experts, *start_KI.shape))
        start = (start_EKI, jnp.zeros(n_experts), jnp.float32(jnp.inf), 0)
        found = jax.lax.while_loop(lambda carry: (carry[2] > 1e-6) & (carry[3] < 64), search, start)
    return found[0][:, 0], found[1]


def kth_smallest_magnitude(blocks: Sequence[jax.Array], k_E: jax.Array) -> jax.Array:
    """The k-th smallest |x| (k from 0) of each expert over several blocks, float32[E], exact.

    Non-negative floats are ordered like their bit patterns, so the answer is found four bits at a time, highest bits
    first: eight counting passes, no sort, and no copy larger than one layer.

    Args:
      blocks: [E, P_i] or [L_i, E, ...] each.
      k_E: int32[E], less than the number of entries per expert, which must be below 2^31.
    """
    blocks_LEP = [block[None] if block.ndim == 2 else block.reshape(*block.shape[:2], -1) for block in blocks]
    digits = range(1, 16)

    def find_digit(i, found_E):
        shift = jnp.uint32(28) - 4 * jnp.asarray(i, jnp.uint32)
        candidates = [found_E | (jnp.uint32(digit) << shift) for digit in digits]
        below_E = [sum(counts) for counts in zip(*(_count_below(x, candidates) for x in blocks_LEP), strict=True)]
        digit_E = sum((count_E <= k_E).astype(jnp.uint32) for count_E in below_E)
        return found_E | (digit_E << shift)

    found_E = jax.lax.fori_loop(0, 8, find_digit, jnp.zeros(k_E.shape, jnp.uint32))
    return jax.lax.bitcast_convert_type(found_E, jnp.float32)


def _count_below(x_LEP, candidates):
    """Number of magnitudes per expert with a bit pattern below each candidate, uint32[E]: int32[E] for each.

    A single reduction with many operands reads the entries once for all candidates.
    """
    zeros = (jnp.int32(0),) * len(candidates)

    def add_layer(counts, x_EP):
        bits_EP = jax.lax.bitcast_convert_type(jnp.abs(x_EP.astype(jnp.float32)), jnp.uint32)
        below = tuple((bits_EP < candidate_E[:, None]).astype(jnp.int32) for candidate_E in candidates)
        layer = jax.lax.reduce(below, zeros, lambda left, right: tuple(map(jnp.add, left, right)), (1,))
        return tuple(map(jnp.add, counts, layer)), None

    start = (jnp.zeros(candidates[0].shape, jnp.int32),) * len(candidates)
    return jax.lax.scan(add_layer, start, x_LEP)[0]
