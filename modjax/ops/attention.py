"""Causal grouped-query attention within rows, each a forest of prefix trees.

The passes, forward and backward, are those of `attention_blocks` or, on a TPU, of `attention_tpu`. Here they become one
differentiable function that stays local to each device of a mesh and that absorbs mapped axes: `jax.vmap` of a pass
would turn the skipping of blocks into a choice between results.
"""

import functools
import importlib.util
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from modjax.ops import attention_blocks
from modjax.ops.kept import kept

MAY_BE_TPU = importlib.util.find_spec("libtpu") is not None  # programs for a TPU are also compiled without one


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
) -> jax.Array:
    """softmax(scale q k^T) v, each key-value head serving N / K query heads (Ainslie et al., arXiv:2305.13245).

    Query i reads key j exactly when j <= i < ends[j] and, with a window, positions[i] - positions[j] < window.

    q_BTNH: float[B, T, N, H]; k_BTKH, v_BTKH: float[B, T, K, H].
    positions_BT: int32[B, T], the depth of each token in its tree. ends_BT: int32[B, T], the index just after the
      token's subtree, rows being written depth first; 0 for padding.
    window: number of positions that a query reads, its own included, int or int32[]; None for all.
    scale: float or float32[], by default 1 / sqrt(H).
    softcap: scores s become softcap tanh(s / softcap) (arXiv:2408.00118, section 2).
    Scores and softmax are float32; memory is linear in T. A query with no keys gives zeros. Result: like q_BTNH.
    """
    K = k_BTKH.shape[2]
    q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], K, -1, q_BTNH.shape[3])
    scale = q_BTNH.shape[3] ** -0.5 if scale is None else scale
    window = None if window is None else jnp.asarray(window, jnp.int32)
    places = (positions_BT, ends_BT, window, jnp.asarray(scale, jnp.float32))
    return _attend(softcap, q_BTKGH, k_BTKH, v_BTKH, *places).reshape(q_BTNH.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(softcap, q_BTKGH, k_BTKH, v_BTKH, positions_BT, ends_BT, window, scale):
    return _forward(softcap, q_BTKGH, k_BTKH, v_BTKH, positions_BT, ends_BT, window, scale)[0]


def _forward(softcap, q_BTKGH, k_BTKH, v_BTKH, positions_BT, ends_BT, window, scale):
    rows = (q_BTKGH, k_BTKH, v_BTKH, positions_BT, ends_BT)
    out_BTKGH, lse_BKGT = map(kept, _pass("forward", softcap)((window, scale), rows))
    return out_BTKGH, ((window, scale), (*rows, out_BTKGH, lse_BKGT))


def _backward(softcap, read, g_BTKGH):
    (window, scale), rows = read
    dq_BTKGH, dk_BTKH, dv_BTKH = _pass("backward", softcap)((window, scale), (*rows, g_BTKGH))
    # A score is scale x q k, so that q d/dq and scale d/dscale are one sum.
    dscale = jnp.vdot(rows[0].astype(jnp.float32), dq_BTKGH.astype(jnp.float32)) / scale
    return dq_BTKGH, dk_BTKH, dv_BTKH, None, None, None, dscale


_attend.defvjp(_forward, _backward)


# Letters: "..." for all leading axes (experts and rows). Tokens T and the width H of a head are whole on each device;
# so is the group G of query heads that share a key-value head, whose gradients add up.
_QUERIES, _KEYS, _PLACES, _SUMS = "... t k g h", "... t k h", "... t", "... k g t"
_ROWS = (_QUERIES, _KEYS, _KEYS, _PLACES, _PLACES)
_RULES = {
    "forward": (_ROWS, (_QUERIES, _SUMS)),
    "backward": ((*_ROWS, _QUERIES, _SUMS, _QUERIES), (_QUERIES, _KEYS, _KEYS)),
}


@functools.cache
def _pass(direction: str, softcap: float | None) -> Callable[[tuple, tuple], tuple]:
    """A pass over (window, scale) and arrays of rows with any leading axes, which absorb mapped axes."""
    local = _partitioned(functools.partial(_on_device, direction, softcap), *_RULES[direction])

    @custom_vmap
    def run(numbers, rows):
        return local(numbers, rows)

    @run.def_vmap
    def mapped(size, is_mapped, numbers, rows):
        def whole(x, is_mapped):
            return x if is_mapped else jnp.broadcast_to(x, (size, *x.shape))

        rows = jax.tree.map(whole, rows, is_mapped[1])
        if any(jax.tree.leaves(is_mapped[0])):
            numbers = jax.tree.map(whole, numbers, is_mapped[0])
            results = jax.lax.map(lambda one: run(*one), (numbers, rows))
        else:
            results = run(numbers, rows)
        return results, jax.tree.map(lambda _: True, results)

    return run


def _partitioned(run, operands: tuple[str, ...], results: tuple[str, ...]) -> Callable[[tuple, tuple], tuple]:
    """The function with its arrays split, on a mesh, along leading axes and key-value heads, as the queries are."""

    def partition(mesh, inputs, outputs):
        numbers, rows = inputs
        lead, heads = _split(rows[0].sharding, rows[0].shape, mesh)

        def shardings(rules):
            found = {"...": lead, "k": (heads,)}
            specs = (jax.P(*(axis for name in rule.split() for axis in found.get(name, (None,)))) for rule in rules)
            return tuple(jax.sharding.NamedSharding(mesh, spec) for spec in specs)

        alike = jax.tree.map(lambda _: jax.sharding.NamedSharding(mesh, jax.P()), numbers)
        return mesh, run, shardings(results), (alike, shardings(operands))

    def rule(mesh, inputs, outputs):
        numbers = ("",) * (len(inputs) - len(operands))
        formula = " -> ".join(", ".join(part) for part in ((*numbers, *operands), results))
        return formula, {"need_replication_factors": ("t", "g", "h")}

    partitioned = custom_partitioning(run)
    partitioned.def_partition(partition, sharding_rule=rule, decode_shardings=False)
    return partitioned


def _split(sharding: jax.sharding.Sharding, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> tuple[tuple, tuple]:
    """Mesh axes along which leading axes and key-value heads of queries [..., T, K, G, H] are split.

    Axes that are split unevenly or along a part of a mesh axis, such as 2 heads over 4 devices, are taken as whole.
    """
    indices = sharding.devices_indices_map(shape)
    starts = np.array([[index.start or 0 for index in indices[device]] for device in mesh.devices.flat])
    starts = starts.reshape(*mesh.devices.shape, len(shape))

    def axes(dimension):
        start = starts[..., dimension]
        found = tuple(name for number, name in enumerate(mesh.axis_names) if np.ptp(start, axis=number).any())
        return found if len(np.unique(start)) == math.prod(mesh.shape[name] for name in found) else ()

    return tuple(axes(dimension) for dimension in range(len(shape) - 4)), axes(len(shape) - 3)


def _on_device(direction: str, softcap: float | None, numbers, rows):
    """The pass over the arrays of one device: leading axes joined, heads in one axis, in the way of its platform."""
    *lead, T, K, G, H = rows[0].shape
    joined = {_QUERIES: (-1, T, K * G, H), _KEYS: (-1, T, K, H), _PLACES: (-1, T), _SUMS: (-1, K * G, T)}
    split = {_QUERIES: (T, K, G, H), _KEYS: (T, K, H), _SUMS: (K, G, T)}
    operands, results = _RULES[direction]
    rows = tuple(x.reshape(joined[axes]) for x, axes in zip(rows, operands, strict=True))

    def way(run):
        return lambda numbers, rows: run(*rows[:5], *numbers, softcap, *rows[5:])

    found = jax.lax.platform_dependent(numbers, rows, **jax.tree.map(way, _ways(direction, T, H, rows[0].dtype)))
    return tuple(x.reshape(*lead, *split[axes]) for x, axes in zip(found, results, strict=True))


def _ways(direction: str, T: int, H: int, dtype: jnp.dtype) -> dict[str, Callable]:
    """{platform: function of this pass}."""
    in_blocks = getattr(attention_blocks, direction)
    ways = {"cpu": attention_blocks.by_row(in_blocks), "default": functools.partial(in_blocks, largest=512)}
    if MAY_BE_TPU:
        from modjax.ops import attention_tpu  # half a second, for nothing where there is no TPU

        if attention_tpu.fits(T, H, dtype):
            ways["tpu"] = getattr(attention_tpu, direction)
    return ways
