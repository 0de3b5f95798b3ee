"""Causal grouped-query attention within rows, each a forest of prefix trees.

The passes, forward and backward, are those of `attention_blocks` or, on a TPU, of `attention_tpu`. Here they become one
differentiable function that stays local to each device of a mesh and that absorbs mapped axes: `jax.vmap` of a pass
itself would turn the skipping of blocks into a choice between results.
"""

import functools
import importlib.util
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from modjax.ops import attention_blocks
from modjax.ops.kept import kept

MAY_BE_TPU = importlib.util.find_spec("libtpu") is not None  # which also compiles without a TPU


def attend(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    positions_BT: jax.Array,
    ends_BT: jax.Array,
    *,
    window: int | jax.Array | None = None,
    scale: float | jax.Array | None = None,
    softcap: float | None = None,
    row_axes: tuple[str, ...] = ("fsdp",),
) -> jax.Array:
    """softmax(scale q k^T) v, each key-value head serving N / K query heads (Ainslie et al., arXiv:2305.13245).

    Query i reads key j exactly when j <= i < ends[j] and, with a window, positions[i] - positions[j] < window.

    q_BTNH: float[B, T, N, H]; k_BTKH, v_BTKH: float[B, T, K, H].
    positions_BT: int32[B, T], the depth of each token in its tree. ends_BT: int32[B, T], the index just after the
      token's subtree, rows being written depth first; 0 for padding.
    window: number of positions that a query reads, its own included, int or int32[]; None for all.
    scale: float or float32[], by default 1 / sqrt(H).
    softcap: scores s become softcap tanh(s / softcap) (arXiv:2408.00118, section 2).
    row_axes: the axes of the arrays' mesh that B is split along, if they divide it; heads are split along `tensor`.
    Scores and softmax are float32; memory is linear in T. A query with no keys gives zeros. Result: like q_BTNH.
    """
    numbers = (
        None if window is None else jnp.asarray(window, jnp.int32),
        jnp.asarray(q_BTNH.shape[3] ** -0.5 if scale is None else scale, jnp.float32),
    )
    return _attend((softcap, row_axes), numbers, (q_BTNH, k_BTKH, v_BTKH, positions_BT, ends_BT))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how, numbers, rows):
    return _forward(how, numbers, rows)[0]


def _forward(how, numbers, rows):
    out_BTNH, lse_BNT = map(kept, _split("forward", *how, numbers, rows, (_HEADS, _SUMS)))
    return out_BTNH, (numbers, (*rows, out_BTNH, lse_BNT))


def _backward(how, read, g_BTNH):
    numbers, rows = read
    gradients = _split("backward", *how, numbers, (*rows, g_BTNH), (_HEADS, _HEADS, _HEADS))
    # A score is scale x q k: the sum of q dq is that of scale dscale.
    product = jnp.vdot(rows[0].astype(jnp.float32), gradients[0].astype(jnp.float32))
    return (None, product / numbers[1]), (*gradients, None, None)


_attend.defvjp(_forward, _backward)

_HEADS, _PLACES, _SUMS = ("rows", None, "heads"), ("rows",), ("rows", "heads")  # axes of arrays that a mesh may split
_ROWS = (_HEADS, _HEADS, _HEADS, _PLACES, _PLACES, _HEADS, _SUMS, _HEADS)  # q k v positions ends out lse g


def _split(direction: str, softcap: float | None, row_axes, numbers, rows, results) -> tuple[jax.Array, ...]:
    """A pass, each device of a mesh having rows and heads of its own.

    The mesh is read from the type of the queries, which keeps it under every transformation. An axis that `jax.vmap`
    maps over is split along its `spmd_axis_name`. Meshes with other axes than `parallel.mesh` makes are left to XLA.
    """
    run, mesh = _mapped(direction, softcap), jax.typeof(rows[0]).sharding.mesh
    if not {*row_axes, "tensor"} <= set(mesh.axis_names) or set(mesh.axis_types) != {AxisType.Auto}:
        return run(numbers, rows)
    sizes = {"rows": rows[0].shape[0], "heads": rows[1].shape[2]}
    names = {"rows": row_axes, "heads": ("tensor",)}
    splits = {axis: own for axis, own in names.items() if sizes[axis] % math.prod(map(mesh.shape.get, own)) == 0}
    specs = tuple(P(*map(splits.get, axes)) for axes in (*_ROWS[: len(rows)], *results))
    in_specs, out_specs = (P(), specs[: len(rows)]), specs[len(rows) :]
    return jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)(numbers, rows)


@functools.cache
def _mapped(direction: str, softcap: float | None) -> Callable[[tuple, tuple], tuple]:
    """A pass on one device; the rows that `jax.vmap` maps over become more rows of one pass."""

    @custom_vmap
    def run(numbers, rows):
        return _run(direction, softcap, numbers, rows)

    @run.def_vmap
    def run_mapped(size, is_mapped, numbers, rows):
        def all_mapped(x, is_mapped):
            return x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))

        rows = jax.tree.map(all_mapped, rows, is_mapped[1])
        if any(jax.tree.leaves(is_mapped[0])):
            numbers = jax.tree.map(all_mapped, numbers, is_mapped[0])
            results = jax.lax.map(lambda one: run(*one), (numbers, rows))
        else:
            joined = run(numbers, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows))
            results = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), joined)
        return results, jax.tree.map(lambda _: True, results)

    return run


def _run(direction: str, softcap: float | None, numbers, rows) -> tuple[jax.Array, ...]:
    """A pass, in the way of the platform that the program is compiled for."""
    in_blocks = getattr(attention_blocks, direction)
    ways = {"cpu": attention_blocks.by_row(in_blocks), "default": functools.partial(in_blocks, largest=512)}
    if MAY_BE_TPU:
        from modjax.ops import attention_tpu  # half a second of imports

        _, T, _, H = rows[0].shape
        if attention_tpu.fits(T, H, rows[0].dtype):
            ways["tpu"] = getattr(attention_tpu, direction)

    def by(way):
        return lambda numbers, rows: way(*rows[:5], *numbers, softcap, *rows[5:])

    return jax.lax.platform_dependent(numbers, rows, **jax.tree.map(by, ways))
