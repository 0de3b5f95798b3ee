"""Collectives read from compiled text: every notation of groups, and real programs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from modjax.parallel.collectives import Collective, collectives
from modjax.parallel.mesh import make_mesh


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(expert=2, fsdp=2, tensor=2)


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", ("tensor",)),
        ("replica_groups={{0,2},{1,3},{4,6},{5,7}}", ("fsdp",)),
        ("replica_groups={}", ("expert", "fsdp", "tensor")),
        ("replica_groups=[4,2]<=[8]", ("tensor",)),
        ("replica_groups=[2,4]<=[8]", ("fsdp", "tensor")),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", ("expert",)),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", ("fsdp",)),
        ("replica_groups=mesh['x'=2,'y'=4] {'x'}", ("expert",)),
        ("replica_groups=mesh['x'=2,'y'=2,'z'=2] {'x','z'}", ("expert", "tensor")),
        ("replica_groups=mesh['x'=2,'y'=1,'z'=4], device_ids=([4,2]T(1,0)) {'x'}", ("tensor",)),
        ("replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}", ()),
    ],
)
def test_each_notation_of_groups(mesh, groups, axes):
    line = f"  %r = f32[4]{{0}} all-reduce-start(%x), channel_id=1, {groups}, use_global_device_ids=true"
    size = math.prod(mesh.shape[axis] for axis in axes)
    assert collectives(line, mesh) == [Collective("all-reduce", "f32[4]{0}", axes, size, channel=1)]


def test_a_permutation_is_read_by_its_pairs(mesh):
    line = "%p = (f32[2]{0}, /*index=1*/f32[]) collective-permute(%x), source_target_pairs={{0,4},{4,0}}, channel_id=1"
    assert collectives(line, mesh)[0].axes == ("expert",)


@pytest.mark.parametrize(
    ("instruction", "sent"),
    [
        ("bf16[8,4]{1,0:T(8,128)(2,1)} all-gather(%x)", 64 * 3 // 4),
        ("(f32[2]{0}, f32[8]{0:S(1)}, u32[], u32[]) all-gather-start(%x)", 32 * 3 // 4),
        ("((f32[2]{0}, pred[2]{0}), (f32[8]{0}, pred[8]{0})) all-gather-start(%x, %y)", 40 * 3 // 4),
        ("(f32[8]{0}, f32[]) all-reduce(%x, %y)", 2 * 36 * 3 // 4),
        ("f32[8]{0} all-reduce-start(%x)", 2 * 32 * 3 // 4),
        ("f8e4m3fn[8]{0} reduce-scatter(%x)", 8 * 3),
        ("s4[8]{0} all-to-all(%x)", 4 * 3 // 4),
    ],
)
def test_bytes_that_a_device_sends(mesh, instruction, sent):
    found = collectives(f"%r = {instruction}, channel_id=3, replica_groups=[2,4]<=[8]", mesh)
    assert [(one.sent, one.group, one.channel) for one in found] == [(sent, 4, 3)]


def test_bytes_of_a_permutation(mesh):
    line = "%p = (f32[2]{0}, f32[2]{0}, u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,4},{4,0}}"
    assert [(one.sent, one.channel) for one in collectives(line, mesh)] == [(8, 0)]


def test_an_unknown_notation_is_never_overlooked(mesh):
    with pytest.raises(ValueError, match="unknown notation"):
        collectives("%r = f32[4]{0} all-reduce(%x), replica_groups=@new", mesh)


@pytest.mark.parametrize("axis", ["expert", "fsdp", "tensor"])
def test_a_real_sum_along_one_axis(mesh, axis):
    sharding = NamedSharding(mesh, jax.P(axis))
    x = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)
    found = collectives(jax.jit(jnp.sum).lower(x).compile().as_text(), mesh)
    assert [(one.kind, one.axes) for one in found] == [("all-reduce", (axis,))]


def test_a_program_without_exchange_has_none(mesh):
    x = jax.ShapeDtypeStruct((8,), np.float32, sharding=NamedSharding(mesh, jax.P("expert")))
    assert collectives(jax.jit(jnp.sin).lower(x).compile().as_text(), mesh) == []
