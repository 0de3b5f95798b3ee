"""Sharding rules: exactly one for each array of each family, and specs that fit its shape."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modjax.errors import InputError
from modjax.models.config import FAMILIES, ModelConfig
from modjax.models.weights import abstract, leaves
from modjax.parallel import rules
from modjax.parallel.mesh import make_mesh

P = jax.P


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def tied(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def arrays(request, tiny_json, tied):
    config = ModelConfig.from_hf(tiny_json(request.param, tie_word_embeddings=tied), "config.json")
    return leaves(abstract(config, jnp.float32))


def test_each_array_matches_exactly_one_rule(arrays):
    for path in arrays:
        assert sum(bool(re.fullmatch(pattern, path)) for pattern, _ in rules.BASE) == 1, path


def test_every_matrix_is_split_over_fsdp_and_tensor_and_never_over_layers(arrays):
    for path, array in arrays.items():
        partition = rules.spec(path)
        assert len(partition) <= array.ndim
        if path.startswith("blocks."):
            assert not partition or partition[0] is None
        if path.endswith("kernel") or path == "embed":
            assert {"fsdp", "tensor"} == {axis for axes in partition if axes for axis in np.ravel(axes)}


@pytest.mark.parametrize("path", ["blocks.attn.x.kernel", "head.kernel.more", "embed2"])
def test_a_path_without_a_rule_is_named(path):
    with pytest.raises(InputError, match=f"{path}: 0 sharding rules match; expected exactly one"):
        rules.spec(path)


def test_a_path_with_two_rules_is_named():
    with pytest.raises(InputError, match="head: 2 sharding rules match"):
        rules.spec("head", ((r"h\w+", P()), ("head", P())))


@pytest.mark.parametrize(
    ("partition", "shape", "expected"),
    [
        (P("fsdp", "tensor"), (4, 6), P("fsdp", "tensor")),
        (P("fsdp", "tensor"), (3, 6), P(None, "tensor")),
        (P("fsdp"), (4, 6), P("fsdp", None)),
        (P(None, "expert"), (2, 3, 4, 5), P(None, None, None, None)),
        (P(("tensor", "fsdp")), (8,), P(("tensor", "fsdp"))),
        (P(("tensor", "fsdp")), (6,), P("tensor")),
        (P(("tensor", "fsdp")), (5,), P(None)),
    ],
)
def test_axes_that_do_not_divide_are_left_out(partition, shape, expected):
    assert rules.fitting(partition, shape, make_mesh(expert=2, fsdp=2, tensor=2)) == expected


def test_arrays_are_placed_where_the_rules_say():
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    kernel = np.arange(2 * 8 * 4, dtype=np.float32).reshape(2, 8, 4)
    placed = jax.device_put(kernel, rules.layout(mesh)("blocks.attn.q.kernel", kernel))
    assert placed.sharding.spec == P(None, "fsdp", "tensor")
    assert placed.addressable_shards[0].data.shape == (2, 4, 2)
    np.testing.assert_array_equal(placed, kernel)


def test_without_a_mesh_arrays_go_to_the_one_device():
    placed = rules.put(np.arange(3), rules.EXPERT, None)
    assert len(placed.sharding.device_set) == 1


def test_an_array_that_is_split_less_than_its_rule_says_is_named(caplog):
    place = rules.layout(make_mesh(expert=2, fsdp=2, tensor=2))
    place("embed", jnp.zeros((8, 6)))
    assert not caplog.records
    place("embed", jnp.zeros((6, 6)))
    assert "embed[6, 6] is split into 2 parts, not 4, which do not divide it" in caplog.text
