"""Sharding rules: pairs (regex, PartitionSpec); the path of each array must match exactly one."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from modjax.errors import InputError

Rules = tuple[tuple[str, P], ...]

# The frozen base. Over `tensor`, kernels that read the model width are split by output, those that return to it by
# input; over `fsdp`, both are split by the other axis. The layer axis of stacked leaves is never split. The embedding
# is split by vocabulary only: for a lookup in a table split along both axes, XLA replicates it on all devices.
BASE: Rules = (
    (r"embed", P(("tensor", "fsdp"))),
    (r"position_embed", P()),
    (
        r"blocks\.(attn\.[qkv]|attn\.qkv|mlp\.(gate|up|gate_up|fc1))\.kernel(\.codes|\.scale)?",
        P(None, "fsdp", "tensor"),
    ),
    (r"blocks\.(attn\.o|mlp\.(down|fc2))\.kernel(\.codes|\.scale)?", P(None, "tensor", "fsdp")),
    (r"blocks\.(attn|mlp)\.\w+\.kernel\.sample", P()),
    (r"blocks\.(attn\.[qkv]|attn\.qkv|mlp\.(gate|up|gate_up|fc1))\.bias", P(None, "tensor")),
    (r"blocks\.(attn\.o|mlp\.(down|fc2))\.bias", P()),
    (r"blocks\.\w+_norm\.\w+|final_norm\.\w+", P()),
    (r"head\.kernel", P("fsdp", "tensor")),
    (r"head\.bias|tied_bias", P("tensor")),
)

ROWS = ("expert", "fsdp")  # the axes that rows are split along
LORA = P(None, "expert")  # a factor [L, E, R, I] or [L, E, R, O]
EXPERT = P("expert")  # a vector [E]


def spec(path: str, rules: Rules = BASE) -> P:
    """The PartitionSpec of one array. Raises InputError unless exactly one rule matches its whole path."""
    matches = [found for pattern, found in rules if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise InputError(f"{path}: {len(matches)} sharding rules match; expected exactly one")
    return matches[0]


def layout(mesh: jax.sharding.Mesh, rules: Rules = BASE):
    """A function (path, object with the array's shape) -> sharding of the array on the mesh.

    Logs a warning for an array that is split into fewer parts than its rule says.
    """

    def one(path, like):
        partition = spec(path, rules)
        found = sharding(like, partition, mesh)
        expected, split = (math.prod(parts(own, mesh)) for own in (partition, found.spec))
        if split < expected:
            shape = list(like.shape)
            logging.warning("%s%s is split into %d parts, not %d, which do not divide it", path, shape, split, expected)
        return found

    return one


def row_axes(members: int) -> tuple[str, ...]:
    """The axes that the rows of each member are split along: those of a single one along `expert` too."""
    return ROWS if members == 1 else ROWS[1:]


def of_members(members: int) -> P:
    """The split of rows [members, B, ...]."""
    return P(None if members == 1 else ROWS[0], row_axes(members))


def by_rows(x: jax.Array, mesh: jax.sharding.AbstractMesh, axes: tuple[str, ...] = ROWS) -> jax.Array:
    """The array, in a compiled program, with its first axis split along axes of a mesh of `make_mesh`, if it is one.

    Rows that they do not divide stay as XLA splits them: callers fill them up, see `row_shards`.
    """
    if not set(axes) <= set(mesh.axis_names) or x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(axes)))


def resplit(x: jax.Array, partition: P, mesh: jax.sharding.AbstractMesh) -> jax.Array:
    """The array, in a compiled program, split in another way on a mesh of `make_mesh`, if it is one."""
    return jax.lax.with_sharding_constraint(x, sharding(x, partition, mesh)) if set(ROWS) <= set(mesh.axis_names) else x


def parts(partition: P, mesh: jax.sharding.Mesh) -> tuple[int, ...]:
    """The number of parts that each axis of an array is split into."""
    along = ((axes,) if isinstance(axes, str) else axes or () for axes in partition)
    return tuple(math.prod(mesh.shape[axis] for axis in axes) for axes in along)


def row_shards(mesh: jax.sharding.AbstractMesh) -> int:
    """The parts that rows are split into where none belongs to an expert, as in inference; 1 without a mesh."""
    return math.prod(mesh.shape.get(axis, 1) for axis in ROWS)


def put(array: np.ndarray, partition: P, mesh: jax.sharding.Mesh | None) -> jax.Array:
    """Puts a host array on the mesh; without a mesh, on the default device.

    Each process gives the whole array, of which only the parts on its own devices are read.
    """
    if mesh is None:
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, sharding(array, partition, mesh), lambda index: array[index])


def everywhere(tree: Any, mesh: jax.sharding.Mesh | None) -> Any:
    """The tree with its arrays whole on every device of the mesh; those that lie on a mesh already stay as they do."""

    def one(leaf):
        on_mesh = isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)
        return leaf if on_mesh else put(np.asarray(leaf), P(), mesh)

    return tree if mesh is None else jax.tree.map(one, tree)


def sharding(like: Any, partition: P, mesh: jax.sharding.Mesh) -> NamedSharding:
    """The sharding of an array with the shape of `like`, by the part of the spec that fits; see `fitting`."""
    return NamedSharding(mesh, fitting(partition, like.shape, mesh))


def fitting(partition: P, shape: Sequence[int], mesh: jax.sharding.Mesh) -> P:
    """The spec without mesh axes that do not divide their dimension, such as 3 key-value heads over 2 devices."""
    partition = tuple(partition) + (None,) * (len(shape) - len(partition))
    return P(*(_dividing(axes, size, mesh) for axes, size in zip(partition, shape, strict=True)))


def _dividing(axes, size, mesh):
    """The mesh axes of one dimension, without the last ones until the others divide its size."""
    axes = (axes,) if isinstance(axes, str) else axes or ()
    while size % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    return axes if len(axes) > 1 else axes[0] if axes else None
