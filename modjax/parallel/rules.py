"""Where each array lies on the mesh: ordered (regex, PartitionSpec) rules; each path must match exactly one."""

import re
from collections.abc import Iterable

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from modjax.errors import InputError

Rules = tuple[tuple[str, P], ...]

# The base: input-major maps are split by columns over `tensor`, the maps back to D by rows, both by the other
# side over `fsdp`. Stacked leaves have the layer axis first, which is never split.
BASE: Rules = (
    (r"embed", P("tensor", "fsdp")),
    (r"blocks\.(attn\.[qkv]|attn\.qkv|mlp\.(gate|up|fc1))\.kernel", P(None, "fsdp", "tensor")),
    (r"blocks\.(attn\.o|mlp\.(down|fc2))\.kernel", P(None, "tensor", "fsdp")),
    (r"blocks\.(attn\.[qkv]|attn\.qkv|mlp\.(gate|up|fc1))\.bias", P(None, "tensor")),
    (r"blocks\.(attn\.o|mlp\.(down|fc2))\.bias", P()),
    (r"blocks\.\w+_norm\.\w+|final_norm\.\w+", P()),
    (r"head\.kernel", P("fsdp", "tensor")),
    (r"head\.bias", P("tensor")),
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


def place(mesh: jax.sharding.Mesh, rules: Rules = BASE):
    """A function (path, host array) -> jax.Array on the mesh, each process giving the parts it holds."""

    def shard(path, array):
        sharding = NamedSharding(mesh, fitting(spec(path, rules), array.shape, mesh))
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return shard


def fitting(partition: P, shape: Iterable[int], mesh: jax.sharding.Mesh) -> P:
    """The spec without the axes that do not divide their dimension (3 key-value heads over 2 chips, say)."""
    axes = tuple(partition) + (None,) * (len(tuple(shape)) - len(partition))
    return P(*(axis if axis is None or size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape)))
