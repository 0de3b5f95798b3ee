"""Sharding rules: pairs (regex, PartitionSpec); the path of each array must match exactly one."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
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

ROWS = P("expert", "fsdp")  # a batch [E, B, ...]
LORA = P(None, "expert")  # a factor [L, E, R, I] or [L, E, R, O]
EXPERT = P("expert")  # a vector [E]


def spec(path: str, rules: Rules = BASE) -> P:
    """The PartitionSpec of one array. Raises InputError unless exactly one rule matches its whole path."""
    matches = [found for pattern, found in rules if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise InputError(f"{path}: {len(matches)} sharding rules match; expected exactly one")
    return matches[0]


def layout(mesh: jax.sharding.Mesh, rules: Rules = BASE):
    """A function (path, object with the array's shape) -> sharding of the array on the mesh."""
    return lambda path, like: sharding(like, spec(path, rules), mesh)


def put(array: np.ndarray, partition: P, mesh: jax.sharding.Mesh | None) -> jax.Array:
    """Puts a host array, equal in every process, on the mesh; without a mesh, on the default device."""
    if mesh is None:
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, sharding(array, partition, mesh), lambda index: array[index])


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
