"""The reading of a compiled program's text: cycles, bytes on the wire, rounds of loops."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from modjax.parallel.mesh import make_mesh
from modjax.parallel.program import Program

TEXT = """HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/benchmarks/run.py"
2 "/somewhere/modjax/models/layers.py"
3 "/somewhere/site-packages/optax/update.py"

FunctionNames
1 "main"
2 "Block.attention"
3 "Linear.__call__"
4 "step.<locals>.<lambda>"
5 "Decoder._scan.<locals>.layer"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=2 function_name_id=2 line=2}
3 {file_name_id=3 function_name_id=1 line=3}
4 {file_name_id=2 function_name_id=3 line=4}
5 {file_name_id=2 function_name_id=4 line=5}
6 {file_name_id=2 function_name_id=5 line=6}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=3 parent_frame_id=2}
5 {file_location_id=6 parent_frame_id=3}
6 {file_location_id=2 parent_frame_id=6}
7 {file_location_id=4 parent_frame_id=7}
8 {file_location_id=5 parent_frame_id=3}

%fused (p.1: f32[8]) -> f32[8] {
  ROOT %inner = f32[8]{0} add(%p.1, %p.1), backend_config={"estimated_cycles":"1000000"}
}

%gathering (p.6: bf16[4]) -> bf16[8] {
  ROOT %all-gather.1 = bf16[8]{0} all-gather(%p.6), channel_id=5, replica_groups=[4,2]<=[8], dimensions={0}
}

%cond (p.2: (s32[], f32[8])) -> pred[] {
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (p.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  %own = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=2}, backend_config={"estimated_cycles":"10"}
  %called = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=3}, backend_config={"estimated_cycles":"1"}
  %attention_forward.1 = (bf16[2,4,64,512]{3,2,1,0}, f32[2,4,1,512]{3,2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call"
  %start = (bf16[4]{0}, bf16[8]{0}) fusion(%x), kind=kCustom, calls=%gathering
  %next = (bf16[4]{0}, bf16[8]{0}) fusion(%start), kind=kCustom, calls=%gathering
  ROOT %tuple = (s32[], f32[8]) tuple(%i, %own)
}

%called_computation (p.7: f32[8]) -> f32[8] {
  ROOT %again = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=4}, backend_config={"estimated_cycles":"7"}
}

%no_limit (p.8: (s32[], s32[])) -> pred[] {
  ROOT %less.1 = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (p.4: f32[8]) -> f32[8] {
  %sum.1 = f32[100]{0} all-reduce(%x), channel_id=6, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %sum.2 = f32[100]{0} all-reduce(%x), channel_id=7, replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %same = f32[9]{0} collective-permute(%x), channel_id=8, source_target_pairs={{0,0},{1,1}}
  %call = f32[8]{0} call(%x), to_apply=%called_computation
  %found = (s32[], s32[]) while(%tuple.2), condition=%no_limit, body=%called_computation, backend_config={"known_trip_count":{"n":"2"}}
  %unknown = (s32[], s32[]) while(%tuple.2), condition=%no_limit, body=%called_computation
  %either = f32[8]{0} conditional(%p, %x, %x), true_computation=%called_computation, false_computation=%called_computation, metadata={op_name="%no"}
  %one = f32[8]{0} conditional(%p, %x), branch_computations={%called_computation}
  %loop = (s32[], f32[8]) while(%tuple.1), condition=%cond, body=%body, metadata={stack_frame_id=2}
  ROOT %last = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=4}, backend_config={"estimated_cycles":"5"}
}
"""  # noqa: E501


CALLED = 1 + 2 + 1 + 2 + 1  # a call, two rounds, a loop of unknown rounds, two branches, one branch


def test_cycles_count_rounds_of_loops_and_go_to_the_innermost_file_of_modjax():
    program = Program(TEXT)
    found = program.cycles(lambda path: path or "elsewhere", {"attention_forward": 100})
    rest = 5 + 7 * CALLED
    assert found == {"models/layers.py": 3 * (10 + 1), "attention": 3 * 2 * 4 * 100, "elsewhere": rest}
    assert program.kernels == {"attention_forward"}
    assert program.cycles(lambda path: path, {})["attention"] == 0


@pytest.mark.parametrize(
    ("called", "frame", "op", "origin"),
    [
        ("fused", 7, "jit(f)/jvp(vmap())/dot", "forward: attention/Linear"),
        ("stacking", 6, "jit(f)/jvp(vmap())/dot", "kept for backward: attention"),
        ("stacking", 6, "jit(f)/transpose(jvp(vmap()))/dot", "backward: attention"),
        ("fused", 6, "jit(f)/transpose(jvp())/rematted_computation/dot", "recomputed: attention"),
        ("fused", 2, "jit(f)/add", "update: attention"),
        ("fused", 8, "jit(f)/add", "update: attention"),
        ("fused", 1, "jit(f)/add", ""),
    ],
)
def test_the_origin_of_an_instruction(called, frame, op, origin):
    """The pass, and the functions of modjax within a layer; lambdas have no name."""
    line = f'  %own = f32[8]{{0}} fusion(%x), calls=%{called}, metadata={{op_name="{op}" stack_frame_id={frame}}}\n'
    stacking = "%stacking (p: f32[8]) -> f32[8] {\n  ROOT %w = f32[8]{0} dynamic-update-slice(%a, %b, %c)\n}\n\n"
    start = "ENTRY %main (p.4: f32[8]) -> f32[8] {\n"
    program = Program(TEXT.replace(start, f"{stacking}ENTRY %main () -> f32[8] {{\n{line}"))
    assert program.origin("own", "f32[8]") == origin
    assert program.origin("own", "f32[1]") == origin.replace("kept for backward", "forward")
    assert program.origin("unknown", "f32[8]") == ""


MEGASCALE = """
ENTRY %main (p: f32[8]) -> f32[8] {
  %sum = f32[100]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%add
  %send = (f32[100]{0}, u32[], token[]) send(%x, %a), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[100]{0:T(128)}, u32[], token[]) recv(%a), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv-done = (f32[100]{0}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  %recv.1 = (bf16[8]{0}, u32[], token[]) recv(%a), channel_id=4, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_GATHER"}
  %recv.2 = (bf16[8]{0}, u32[], token[]) recv(%a), channel_id=5, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ONE_TO_ONE"}
}
"""  # noqa: E501


@pytest.mark.parametrize(("axis", "within"), [(0, "tensor"), (1, "tensor"), (2, "fsdp")])
def test_bytes_between_slices(axis, within):
    """The program of one of two slices, whose four devices are its partitions, for slices along each axis."""
    slices = np.moveaxis(np.arange(8).reshape(2, 2, 2) // 4, 0, axis)
    device = np.vectorize(lambda number: types.SimpleNamespace(slice_index=number, platform="tpu"), otypes=[object])
    mesh = types.SimpleNamespace(devices=device(slices), axis_names=("expert", "fsdp", "tensor"))
    program = Program(MEGASCALE)
    assert program.wire(mesh) == {within: 400}
    assert program.wire(mesh, network=True) == {mesh.axis_names[axis]: 400 + 16 // 2 + 16}
    assert Program(TEXT).wire(make_mesh(expert=2, fsdp=2, tensor=2), network=True) == {}


def test_a_loop_without_a_limit_counts_once_and_is_told():
    assert Program(TEXT).unknown_loops == 1


def test_bytes_on_the_wire_count_rounds_and_an_asynchronous_collective_once():
    """Gathered along tensor in each of three rounds, in two instructions of one channel; summed twice beyond loops.

    What a device sends to itself is not on the wire.
    """
    found = Program(TEXT).wire(make_mesh(expert=2, fsdp=2, tensor=2))
    assert found == {"expert+fsdp": 2 * (2 * 400 * 3 // 4), "tensor": 3 * 16 // 2}


@pytest.mark.parametrize("rounds", [1, 5])
def test_a_real_loop_on_a_mesh(rounds):
    mesh = make_mesh(expert=4, fsdp=2)
    x = jax.ShapeDtypeStruct((8, 3), jnp.float32, sharding=NamedSharding(mesh, jax.P("fsdp")))

    def summed(x):
        return jax.lax.scan(
            lambda total, i: (total + jnp.sum(x * total[None], axis=0), None), x[0], jnp.arange(rounds)
        )[0]

    program = Program(jax.jit(summed).lower(x).compile().as_text())
    assert program.unknown_loops == 0
    sums = rounds * 2 * 3 * 4 // 2  # three numbers of four bytes, twice for half of the group
    first = {"fsdp": 2 * 3 * 4 // 2}  # x[0] is on one of two devices
    assert program.wire(mesh)["fsdp"] == sums + first["fsdp"]
