"""Products with rows of a matrix that differ from token to token, without a copy of the rows for each token.

On CPUs XLA compiles sums of products with gathered rows to one loop that reads the rows in place, and uses vector
instructions where the innermost axis is a part of a row. A gather before a matrix product, or within a reduction of the
innermost axis, is 10 to 60 times slower (1024 tokens, 16 of 1024 rows of width 512).
"""

import jax
import jax.numpy as jnp

PIECES = 32  # most pieces that a row is cut into, each a term of one compiled loop: 8 took 1.5 times as long, 4 twice
ROWS = 16  # most rows per step of the sum, each a term of one compiled loop: 64 rows at once took 3 times as long


def products(x_nI: jax.Array, rows_SI: jax.Array, ids_nk: jax.Array) -> jax.Array:
    """The products of each token with its own rows, float32[n,k]: x[n] . rows[ids[n,k]].

    In the dtype of x, accumulated in float32.
    """
    return jax.lax.platform_dependent(x_nI, rows_SI, ids_nk, cpu=_products_in_place, default=_products)


def weighted_sum(weights_nk: jax.Array, rows_SO: jax.Array, ids_nk: jax.Array) -> jax.Array:
    """The weighted sum of each token's own rows, float32[n,O]: sum_k weights[n,k] rows[ids[n,k]].

    In the dtype of the weights, accumulated in float32.
    """
    return jax.lax.platform_dependent(weights_nk, rows_SO, ids_nk, cpu=_weighted_sum_in_place, default=_weighted_sum)


def _products(x_nI, rows_SI, ids_nk):
    return jnp.einsum("ni,nki->nk", x_nI, _at(rows_SI, ids_nk).astype(x_nI.dtype), preferred_element_type=jnp.float32)


def _weighted_sum(weights_nk, rows_SO, ids_nk):
    rows_nkO = _at(rows_SO, ids_nk).astype(weights_nk.dtype)
    return jnp.einsum("nk,nko->no", weights_nk, rows_nkO, preferred_element_type=jnp.float32)


def _products_in_place(x_nI, rows_SI, ids_nk):
    """Vector lanes run along a piece of a row; a product with ones sums them, because a reduction would be fused."""
    width = x_nI.shape[-1]
    pieces = _divisor(width // 8 if width % 8 == 0 else width, PIECES)
    x_nPX = x_nI.astype(jnp.float32).reshape(len(x_nI), pieces, -1)
    rows_SPX = rows_SI.reshape(len(rows_SI), pieces, -1)
    lanes_nkX = sum(x_nPX[:, None, piece] * _in(x_nI.dtype, _at(rows_SPX[:, piece], ids_nk)) for piece in range(pieces))
    return jnp.einsum("nkx,x->nk", lanes_nkX, jnp.ones(lanes_nkX.shape[-1]))


def _weighted_sum_in_place(weights_nk, rows_SO, ids_nk):
    """In at least two steps: a loop of one is inlined, fused with what reads the sum, and then much slower."""
    n_rows = ids_nk.shape[1]
    step = _divisor(n_rows, min(ROWS, max(n_rows // 2, 1)))

    def add(sum_nO, chosen):
        weights_kn, ids_kn = chosen
        for weight_n, id_n in zip(weights_kn, ids_kn, strict=True):
            sum_nO = sum_nO + weight_n.astype(jnp.float32)[:, None] * _in(weights_nk.dtype, _at(rows_SO, id_n))
        return sum_nO, None

    steps = (weights_nk.T.reshape(-1, step, len(ids_nk)), ids_nk.T.reshape(-1, step, len(ids_nk)))
    return jax.lax.scan(add, jnp.zeros((len(ids_nk), rows_SO.shape[-1]), jnp.float32), steps)[0]


def _at(rows, ids):
    return rows.at[ids].get(mode="promise_in_bounds")


def _in(dtype, rows):
    """The rows rounded to a dtype, as float32."""
    return rows.astype(dtype).astype(jnp.float32)


def _divisor(number: int, most: int) -> int:
    """The largest divisor that is at most `most`."""
    return max(one for one in range(1, most + 1) if number % one == 0)
