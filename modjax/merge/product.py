"""The weighted sum of the experts' updates: exact, as longer factors, or truncated to a rank."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modjax.arguments import whole
from modjax.errors import InputError
from modjax.experts.library import Library
from modjax.merge.factors import stacked
from modjax.merge.result import Record, merged, own_rank, scale_of, shares, weighed
from modjax.ops.lora import Factors


class Truncated(NamedTuple):
    """The best approximation of a given rank, and the share of the squared norm that it keeps."""

    factors: Factors  # a[..., R, I], b[..., R, O]; both carry the square roots of the singular values
    kept: jax.Array  # float32[...], the sum of the R largest squared singular values
    total: jax.Array  # float32[...], the sum of all of them


def concatenate(library: Library, weights: Sequence[float] | None = None, name: str = "concatenate") -> Library:
    """dW = sum_e w_e s_e B_e^T A_e, exactly: the experts' factors stacked along the rank. PEFT's "cat".

    The rank is the sum of the experts' own ranks, without their padding.

    Args:
      weights: E finite numbers; by default 1 / E each, without the experts whose training failed.

    Raises InputError for weights that are not E finite numbers.
    """
    library, weights_E = weighed(library, weights)
    record = Record(name, weights_E, {"merged": "concatenate", "form": "products"})
    return merged(library, _stacked(library, weights_E), record)


def svd(
    library: Library, rank: int | None = None, weights: Sequence[float] | None = None, name: str = "svd"
) -> Library:
    """The best approximation of a rank, in the Frobenius norm, of sum_e w_e s_e B_e^T A_e. PEFT's "svd".

    Computed by QR of the concatenated factors and the SVD of the small core between them: no O x I matrix is formed,
    unless the ranks sum to more than that. Layers are processed one after another. `ops.linalg.low_rank_svd`, written
    for the rank of one expert, rotates S (S - 1) / 2 pairs of columns in turn, which is far slower for the S ranks of a
    library (12 layers, S = 120, two CPU cores: 9.5 s, here 0.07 s).

    Args:
      rank: the rank to keep; by default the largest of the experts'.
      weights: E finite numbers; by default 1 / E each, without the experts whose training failed.

    Returns:
      A library of one; `scores` of its ExpertInfo has "kept_energy", the share of the squared Frobenius norm, over all
      sites and layers, that the truncation keeps.

    Raises InputError for weights that are not E finite numbers and for a rank above the sum of the experts' ranks.
    """
    library, weights_E = weighed(library, weights)
    rank = own_rank(library) if rank is None else checked_rank(library, rank)
    cut = {site: _cut_layers(factors, rank) for site, factors in _stacked(library, weights_E).items()}
    return merged_cut(library, cut, Record(name, weights_E, {"merged": "svd", "form": "products"}))


def checked_rank(library: Library, rank: int) -> int:
    """The rank. Raises InputError unless it is from 1 to the sum of the experts' ranks."""
    most = len(_own_rows(library))
    if not 1 <= whole("rank", rank) <= most:
        raise InputError(f"rank={rank}: expected 1 to {most}, the sum of the experts' ranks")
    return int(rank)


def merged_cut(library: Library, cut: Mapping[str, Truncated], record: Record) -> Library:
    """The library of one from {site: Truncated of all layers}, with the share of energy that it keeps."""
    kept, total = (
        sum(np.asarray(part_L, np.float64).sum() for part_L in parts)
        for parts in zip(*((one.kept, one.total) for one in cut.values()), strict=True)
    )
    factors = {site: one.factors for site, one in cut.items()}
    return merged(library, factors, record, {"kept_energy": float(kept / total) if total else 1.0})


def truncated(product_IO: jax.Array, rank: int) -> Truncated:
    """The `rank` leading terms of a matrix's SVD, padded with rows of zeros if there are fewer."""
    v_IS, s_S, u_SO = jnp.linalg.svd(product_IO, full_matrices=False)
    root_R1 = jnp.sqrt(s_S[:rank, None])
    factors = Factors(root_R1 * v_IS.T[:rank], root_R1 * u_SO[:rank])
    missing = max(0, rank - s_S.shape[0])
    factors = Factors(*(jnp.pad(factor, ((0, missing), (0, 0))) for factor in factors))
    return Truncated(factors, jnp.sum(jnp.square(s_S[:rank])), jnp.sum(jnp.square(s_S)))


def _own_rows(library) -> np.ndarray:
    """int[S]: the rows that are not padding, in the experts' factors [E, R] flattened."""
    ranks_E = np.max([ranks_LE.max(axis=0) for ranks_LE in library.ranks.values()], axis=0)
    return np.flatnonzero(np.arange(library.rank)[None] < np.maximum(ranks_E, 1)[:, None])


def _stacked(library, weights_E) -> dict[str, Factors]:
    """{site: a[L,S,I], b[L,S,O]} of all experts, weights and scales in b."""
    rows_S, scale = _own_rows(library), scale_of(library)
    found = {}
    for site, lora in library.loras.items():
        pair = stacked(lora, shares(lora, weights_E, "products", scale).b)
        found[site] = Factors(*(factor_LSX[:, rows_S] for factor_LSX in pair))
    return found


@functools.partial(jax.jit, static_argnames="rank")
def _cut_layers(factors, rank):
    def one(layer):
        (q_IK, r_KS), (q_OM, r_MS) = (jnp.linalg.qr(factor_SX.T) for factor_SX in layer)
        core = truncated(r_KS @ r_MS.T, rank)
        return core._replace(factors=Factors(core.factors.a @ q_IK.T, core.factors.b @ q_OM.T))

    with jax.default_matmul_precision("highest"):
        return jax.lax.map(one, factors)
