"""Digests: the same for the same content, another for any other."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax import digest
from modjax.parallel.mesh import make_mesh


def test_arrays_are_told_apart_by_place_dtype_shape_and_bytes():
    first = {"a": np.arange(6, dtype=np.float32), "b": None}
    assert digest.of_arrays(first) == digest.of_arrays({"a": jnp.arange(6, dtype=jnp.float32), "b": None})
    other = [
        {"c": first["a"]},
        {"a": first["a"].astype(np.float64)},
        {"a": first["a"].reshape(2, 3)},
        {"a": np.where(np.arange(6) == 3, np.nextafter(np.float32(3), np.float32(4)), first["a"])},
        [first["a"]],
    ]
    assert len({digest.of_arrays(tree) for tree in (first, *other)}) == 1 + len(other)


@pytest.mark.parametrize("dtype", (jnp.float32, jnp.bfloat16, jnp.uint8), ids=lambda dtype: dtype.__name__)
def test_one_changed_weight_changes_the_digest_of_weights(dtype):
    weights = jax.random.randint(jax.random.key(0), (3, 5, 70), 0, 255).astype(dtype)
    changed = [weights.at[place].add(1) for place in np.ndindex(3, 5, 2)]
    swapped = weights.at[0, 0, :2].set(weights[0, 0, 1::-1])
    found = [digest.of_weights({"a": one}) for one in (weights, *changed, swapped, weights.reshape(5, 3, 70))]
    assert len(set(found)) == len(found)
    assert digest.of_weights({"a": jnp.array(weights)}) == found[0]


def test_weights_on_a_mesh_have_the_digest_of_one_device():
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    weights = jnp.arange(64, dtype=jnp.float32).reshape(8, 8)
    across = jax.device_put(weights, jax.sharding.NamedSharding(mesh, jax.P("expert", "fsdp")))
    assert digest.of_weights([across]) == digest.of_weights([weights])


def test_files_are_told_apart_by_content_and_large_ones_by_name_size_and_time(tmp_path):
    one = tmp_path / "folder" / "one"
    assert digest.of_file(one) == "" and len(digest.of_json([1])) == 16
    one.parent.mkdir()
    one.write_text("a")
    os.utime(one, (1, 1))
    known = digest.of_file(one), digest.of_large(one), digest.of_large(one.parent)
    assert known == (digest.of_file(one), digest.of_large(one), digest.of_large(one.parent))
    os.utime(one, (1, 2))
    assert digest.of_file(one) == known[0]
    assert digest.of_large(one) != known[1] and digest.of_large(one.parent) != known[2]
    one.write_text("b")
    assert digest.of_file(one) != known[0]


def test_the_digest_of_lines_is_that_of_all_in_their_order():
    def of(*values):
        lines = digest.Lines()
        for value in values:
            lines.add(value)
        return lines.digits()

    assert of("a", ["b", 1]) == of("a", ["b", 1]) and len(of()) == 16
    assert len({of("a", "b"), of("b", "a"), of("ab"), of("a"), of(["a", "b"]), of("a", "b", "")}) == 6
