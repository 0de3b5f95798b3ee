"""Linear algebra of low-rank products and of small similarity matrices."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from modjax.ops.lora import LoRA


class LowRankSVD(NamedTuple):
    """dW = sum_r s_r u_r v_r^T, singular values in falling order."""

    u: jax.Array  # [..., R, O]
    s: jax.Array  # [..., R]
    v: jax.Array  # [..., R, I]


def low_rank_svd(lora: LoRA) -> LowRankSVD:
    """The exact thin SVD of B^T A for a[..., R, I], b[..., R, O], without forming the O x I product.

    A^T = Q_a R_a and B^T = Q_b R_b, so B^T A = Q_b (R_b R_a^T) Q_a^T: the SVD of an R x R core, rotated back.
    Batched over all leading axes, in float32. Made of matrix products and rotations alone: batches of tiny LAPACK
    calls are slow on accelerators, and on a CPU with two threads jaxlib 0.10.2 was seen to wait for itself in them
    for ever. Where s is 0, u is too, and v is for directions that A does not have.
    """
    with jax.default_matmul_precision("highest"):
        q_a = _orthonormal_rows(lora.a.astype(jnp.float32))
        q_b = _orthonormal_rows(lora.b.astype(jnp.float32))
        r_a = jnp.einsum("...ri,...si->...rs", q_a, lora.a)
        r_b = jnp.einsum("...ri,...si->...rs", q_b, lora.b)
        u, s, v = _jacobi_svd(jnp.einsum("...rs,...ts->...rt", r_b, r_a))
        return LowRankSVD(jnp.einsum("...rs,...rd->...sd", u, q_b), s, jnp.einsum("...rs,...rd->...sd", v, q_a))


def _orthonormal_rows(x_RD):
    """Gram-Schmidt, each row twice, which is as orthogonal as Householder's; dependent rows become zero."""

    def settle(r, q_RD):
        row_D = x_D = jax.lax.dynamic_index_in_dim(x_RD, r, axis=-2, keepdims=False)
        for _ in range(2):
            row_D = row_D - jnp.einsum("...rd,...r->...d", q_RD, jnp.einsum("...rd,...d->...r", q_RD, row_D))
        norm, whole = (jnp.linalg.norm(one, axis=-1, keepdims=True) for one in (row_D, x_D))
        row_D = jnp.where(norm > 1e-6 * whole, row_D / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny), 0)
        return jax.lax.dynamic_update_index_in_dim(q_RD, row_D, r, axis=q_RD.ndim - 2)

    return jax.lax.fori_loop(0, x_RD.shape[-2], settle, jnp.zeros_like(x_RD))


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


def leading_of_sum(kernel_IO: jax.Array, lora: LoRA) -> tuple[jax.Array, jax.Array]:
    """The first right singular vector of W^T + B_e^T A_e for each e, and its singular value: float32[E,I], float32[E].

    W is [I,O], a[E or 1,R,I] and b[E,R,O]. No sum is formed: a block Krylov space of four directions, grown by
    products with the sums and their transposes, is searched (Rayleigh-Ritz) and begun anew from the best four found,
    until the vector moves by no more than 1e-6 (Golub and Van Loan, Matrix Computations, 10.3).
    """
    width, n_experts = min(4, *kernel_IO.shape), lora.b.shape[0]
    depth = min(4 * width, *kernel_IO.shape)
    a_ERI = jnp.broadcast_to(lora.a, (n_experts, *lora.a.shape[1:]))

    def onto(v_EKI):
        z_EKR = jnp.einsum("eki,eri->ekr", v_EKI, a_ERI)
        return jnp.einsum("eki,io->eko", v_EKI, kernel_IO) + jnp.einsum("ekr,ero->eko", z_EKR, lora.b)

    def back(u_EKO):
        z_EKR = jnp.einsum("eko,ero->ekr", u_EKO, lora.b)
        return jnp.einsum("eko,io->eki", u_EKO, kernel_IO) + jnp.einsum("ekr,eri->eki", z_EKR, a_ERI)

    def search(carry):
        block_EKI, _, _, i = carry
        blocks = [block_EKI]
        while len(blocks) * width < depth:
            blocks.append(_orthonormal_rows(back(onto(blocks[-1]))))
        basis_EKI = _orthonormal_rows(jnp.concatenate(blocks, axis=1))
        found = low_rank_svd(LoRA(basis_EKI, onto(basis_EKI)))
        overlap_E = jnp.sum(found.v[:, 0] * block_EKI[:, 0], axis=-1)
        moved = jnp.abs(found.v[:, 0] - jnp.where(overlap_E < 0, -1, 1)[:, None] * block_EKI[:, 0]).max()
        return found.v[:, :width], found.s[:, 0], moved, i + 1

    with jax.default_matmul_precision("highest"):
        start_KI = jax.random.normal(jax.random.key(0), (width, kernel_IO.shape[0]))
        start_EKI = jnp.broadcast_to(_orthonormal_rows(start_KI), (n_experts, *start_KI.shape))
        begun = (start_EKI, jnp.zeros(n_experts), jnp.float32(jnp.inf), 0)
        found = jax.lax.while_loop(lambda carry: (carry[2] > 1e-6) & (carry[3] < 64), search, begun)
    return found[0][:, 0], found[1]


def kth_smallest_magnitude(blocks: Sequence[jax.Array], k_E: jax.Array) -> jax.Array:
    """The k-th smallest |x| (from 0) of each expert over several blocks, float32[E], exactly.

    Non-negative floats order as their bit patterns do, so the answer is found four bits at a time from the top: eight
    counting passes, no sort, and no copy larger than one layer.

    Args:
      blocks: [E, P_i] or [L_i, E, ...] each.
      k_E: int32[E], below the number of an expert's entries, which is less than 2^31.
    """
    blocks_LEP = [block[None] if block.ndim == 2 else block.reshape(*block.shape[:2], -1) for block in blocks]
    digits = range(1, 16)

    def settle_digit(i, found_E):
        shift = jnp.uint32(28) - 4 * jnp.asarray(i, jnp.uint32)
        candidates = [found_E | (jnp.uint32(digit) << shift) for digit in digits]
        below_E = [sum(counts) for counts in zip(*(_count_below(x, candidates) for x in blocks_LEP), strict=True)]
        digit_E = sum((count_E <= k_E).astype(jnp.uint32) for count_E in below_E)
        return found_E | (digit_E << shift)

    found_E = jax.lax.fori_loop(0, 8, settle_digit, jnp.zeros(k_E.shape, jnp.uint32))
    return jax.lax.bitcast_convert_type(found_E, jnp.float32)


def _count_below(x_LEP, candidates):
    """int32[E] for each uint32[E] of `candidates`: how many of an expert's magnitudes have lower bit patterns.

    One reduction of many operands reads the entries once for all candidates.
    """
    zeros = (jnp.int32(0),) * len(candidates)

    def add_layer(counts, x_EP):
        bits_EP = jax.lax.bitcast_convert_type(jnp.abs(x_EP.astype(jnp.float32)), jnp.uint32)
        below = tuple((bits_EP < candidate_E[:, None]).astype(jnp.int32) for candidate_E in candidates)
        layer = jax.lax.reduce(below, zeros, lambda left, right: tuple(map(jnp.add, left, right)), (1,))
        return tuple(map(jnp.add, counts, layer)), None

    start = (jnp.zeros(candidates[0].shape, jnp.int32),) * len(candidates)
    return jax.lax.scan(add_layer, start, x_LEP)[0]


class KMeans(NamedTuple):
    labels: jax.Array  # int32[n]
    centers: jax.Array  # float32[k, d]
    inertia: jax.Array  # float32, sum of squared distances


_ABREAST = 8  # restarts of k-means under one vmap; the others wait, so that memory is that of eight


def kmeans(x_nd: jax.Array, k: int, key: jax.Array, restarts: int = 64, max_iterations: int = 300) -> KMeans:
    """k-means: greedy k-means++ starts, Lloyd's iteration, then single moves, the best of all restarts.

    A partition that Lloyd's iteration leaves alone may still improve by moving one point, because both centres
    move with it (Hartigan and Wong, 1979); so the best such move is made until there is none. With fewer different
    points than k some clusters stay empty.

    Args:
      restarts: more are never worse, since the first of them are the same. Of 360 sets of points without structure 64
        came to a higher inertia than scikit-learn's 10 on none, and 10 on four, by up to 2 %.
      max_iterations: of Lloyd's iteration; single moves end by themselves, for each lowers the inertia.
    """
    mean_d = jnp.mean(x_nd, axis=0)
    x_nd = x_nd - mean_d[None]  # distances from small coordinates: float32 loses nothing to a large norm

    def run(key):
        labels_n = _lloyd(x_nd, _plus_plus(x_nd, k, key), max_iterations)
        return _single_moves(x_nd, labels_n, k)

    labels, inertias = jax.lax.map(run, jax.random.split(key, restarts), batch_size=_ABREAST)
    best = jnp.argmin(inertias)
    return KMeans(labels[best], _centers(x_nd, labels[best], k)[0] + mean_d[None], inertias[best])


def _squared_distances(x_nd, centers_kd):
    """[k, n]. Differences, not ||x||^2 - 2 x.c + ||c||^2, which cancels; centre by centre, so no [k, n, d] is made."""
    return jax.lax.map(lambda center_d: jnp.sum(jnp.square(x_nd - center_d[None]), axis=1), centers_kd)


def _plus_plus(x_nd, k, key):
    """Greedy k-means++: each new centre is the best of a few drawn with probability ~ distance^2."""
    n = x_nd.shape[0]
    trials = 2 + max(1, k.bit_length())
    first_key, key = jax.random.split(key)
    first = x_nd[jax.random.randint(first_key, (), 0, n)]

    def add(carry, uniform_t):
        nearest_n, centers_kd, i = carry
        upto_n = jnp.cumsum(nearest_n)
        drawn_t = jnp.sum(upto_n[None] <= uniform_t[:, None] * upto_n[-1], axis=1)
        drawn_t = jnp.minimum(drawn_t, n - 1)  # all points are centres already
        nearest_tn = jnp.minimum(nearest_n[None], _squared_distances(x_nd, x_nd[drawn_t]))
        best = jnp.argmin(jnp.sum(nearest_tn, axis=1))
        return (nearest_tn[best], centers_kd.at[i].set(x_nd[drawn_t[best]]), i + 1), None

    nearest_n = jnp.sum(jnp.square(x_nd - first[None]), axis=1)
    centers_kd = jnp.zeros((k, x_nd.shape[1]), x_nd.dtype).at[0].set(first)
    uniform_kt = jax.random.uniform(key, (k - 1, trials))
    (_, centers_kd, _), _ = jax.lax.scan(add, (nearest_n, centers_kd, 1), uniform_kt)
    return centers_kd


def _centers(x_nd, labels_n, k):
    """The mean of each cluster and its size; an empty cluster's is the mean of all points, 0."""
    member_nk = jax.nn.one_hot(labels_n, k, dtype=x_nd.dtype)
    count_k = jnp.sum(member_nk, axis=0)
    sum_kd = jnp.matmul(member_nk.T, x_nd, precision="highest")
    return sum_kd / jnp.maximum(count_k, 1)[:, None], count_k


def _lloyd(x_nd, centers_kd, max_iterations):
    def assign(centers_kd):
        return jnp.argmin(_squared_distances(x_nd, centers_kd), axis=0)

    def step(carry):
        _, labels_n, i = carry
        return labels_n, assign(_centers(x_nd, labels_n, centers_kd.shape[0])[0]), i + 1

    def unsettled(carry):
        previous_n, labels_n, i = carry
        return jnp.any(previous_n != labels_n) & (i < max_iterations)

    labels_n = assign(centers_kd)
    return jax.lax.while_loop(unsettled, step, (jnp.full_like(labels_n, -1), labels_n, 0))[1]


def _single_moves(x_nd, labels_n, k):
    """Labels and inertia after the best moves of one point; distances from the two centres that move are made anew."""
    n = x_nd.shape[0]
    norm_n = jnp.linalg.norm(x_nd, axis=1)

    def step(carry):
        labels_n, distance_kn, count_k, (_, point, cluster), i = carry
        pair = jnp.stack([labels_n[point], cluster])
        labels_n = labels_n.at[point].set(cluster)
        count_k = count_k.at[pair].add(jnp.array([-1.0, 1.0]))
        member_pn = (labels_n[None] == pair[:, None]).astype(x_nd.dtype)
        sum_pd = jnp.matmul(member_pn, x_nd, precision="highest")
        center_pd = sum_pd / jnp.maximum(count_k[pair], 1)[:, None]
        distance_kn = distance_kn.at[pair].set(_squared_distances(x_nd, center_pd))
        return labels_n, distance_kn, count_k, _best_move(labels_n, distance_kn, count_k, norm_n), i + 1

    def improving(carry):
        *_, (gain, _, _), i = carry
        return (gain > 0) & (i < 8 * n)  # far more moves than are needed: the bound is against rounding in a circle

    centers_kd, count_k = _centers(x_nd, labels_n, k)
    distance_kn = _squared_distances(x_nd, centers_kd)
    begun = (labels_n, distance_kn, count_k, _best_move(labels_n, distance_kn, count_k, norm_n), 0)
    labels_n, distance_kn, *_ = jax.lax.while_loop(improving, step, begun)
    return labels_n, jnp.sum(distance_kn[labels_n, jnp.arange(n)])


def _best_move(labels_n, distance_kn, count_k, norm_n):
    """(gain, point, cluster), the gain of moving a point being what its own cluster saves less what the other pays.

    What rounding may add is taken off: the mean of m points is off by m eps of their norm. It goes by the point's own
    distance, since by the spread of all points a few far ones would hide every gain among the near.
    """
    rows_n, own_n = jnp.arange(labels_n.shape[0]), count_k[labels_n]
    saved_n = distance_kn[labels_n, rows_n] * own_n / jnp.maximum(own_n - 1, 1)
    saved_n = jnp.where(own_n > 1, saved_n, 0)
    rounding_n = jnp.finfo(distance_kn.dtype).eps * (8 + own_n) * (saved_n + jnp.sqrt(saved_n) * norm_n)
    paid_kn = distance_kn * (count_k / (count_k + 1))[:, None]
    gain_kn = ((saved_n - rounding_n)[None] - paid_kn).at[labels_n, rows_n].set(-jnp.inf)
    cluster, point = jnp.unravel_index(jnp.argmax(gain_kn), gain_kn.shape)
    return gain_kn[cluster, point], point, cluster.astype(labels_n.dtype)
