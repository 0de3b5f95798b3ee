"""The reading of a compiled program's text, and the arguments of the step; compiling for a TPU needs libtpu."""

import jax
import pytest
import tpu_program
from program_text import Kernel, Program, kernel, kernels

from modjax.models.decoder import Decoder

TEXT = """HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/benchmarks/run.py"
2 "/somewhere/modjax/models/layers.py"
3 "/somewhere/site-packages/optax/update.py"

FunctionNames
1 "main"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=2 function_name_id=1 line=2}
3 {file_name_id=3 function_name_id=1 line=3}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=3 parent_frame_id=2}

%fused (p.1: f32[8]) -> f32[8] {
  ROOT %inner = f32[8]{0} add(%p.1, %p.1), backend_config={"estimated_cycles":"1000000"}
}

%cond (p.2: (s32[], f32[8])) -> pred[] {
  %limit = s32[] constant(3)
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (p.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  %own = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=2}, backend_config={"estimated_cycles":"10"}
  %called = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=3}, backend_config={"estimated_cycles":"1"}
  %attention_forward.1 = (bf16[2,4,64,512]{3,2,1,0}, f32[2,4,1,512]{3,2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call"
  ROOT %tuple = (s32[], f32[8]) tuple(%i, %own)
}

ENTRY %main (p.4: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%tuple.1), condition=%cond, body=%body, metadata={stack_frame_id=2}
  ROOT %last = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={stack_frame_id=4}, backend_config={"estimated_cycles":"5"}
}
"""  # noqa: E501


def test_cycles_count_rounds_of_loops_and_go_to_the_innermost_file_of_modjax():
    found = Program(TEXT).cycles(lambda path: path or "elsewhere", {"attention_forward": 100})
    assert found == {"models/layers.py": 3 * (10 + 1), "attention": 3 * 2 * 4 * 100, "elsewhere": 5}


def bundles(*runs):
    lines = ["= header", *("" for _ in range(2))]
    lines += [f" {i:#x} {kind} : {marks} {{ %v = nop }}" for kind, marks, n in runs for i in range(n)]
    return "\n".join(lines)


def test_parts_of_a_kernel_are_told_apart_by_the_depth_of_loops(tmp_path):
    whole, masked = ("  ", ">>>", 150), ("PF", ">>>", 160)
    text = bundles(("  ", "", 9), ("LB", ">", 7), ("LB", ">>", 20), whole, ("  ", "", 1), masked, ("LE", ">>", 4))
    assert kernel(text) == Kernel(head=7, query_block=24, pair=150, masked_pair=160)
    assert kernel(text).of_path(3) == 7 + 3 * 24 + 3 * 150 + 3 * 160
    (tmp_path / "17-attention_forward.2-01-final_bundles.txt").write_text(text)
    (tmp_path / "17-attention_forward.2-00-schedule-analysis_final_bundles.txt").write_text("")
    assert list(kernels(tmp_path)) == ["attention_forward"]


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("phi-2", 2_779_683_840), ("smollm2-135m", 134_515_008), ("mistral-7b", 7_241_732_096)],
)
def test_models_have_the_sizes_of_those_they_are_named_after(model, parameters):
    abstract = jax.eval_shape(lambda: Decoder.init(tpu_program.CONFIGS[model], jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == parameters


def test_the_step_is_traced_from_shapes_alone():
    """Up to the compilation, on the eight devices of the tests; all weights of Phi-2 would be 5 GB."""
    arguments = tpu_program.arguments(["--mesh", "4", "2", "1", "--experts=4", "--rows=2", "--length=1024"])
    traced = tpu_program.traced(arguments, jax.devices())
    state, metrics = traced.out_info
    assert metrics.loss_E.shape == (4,)
    assert {leaf.shape[1] for leaf in jax.tree.leaves(state.trained)} == {4}


def test_rows_of_one_block_are_refused(capsys):
    with pytest.raises(SystemExit):
        tpu_program.arguments(["--length=512"])
    assert "--length=512: expected more than 512" in capsys.readouterr().err


def test_without_libtpu_the_way_to_install_it_is_said(monkeypatch):
    monkeypatch.setattr(tpu_program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["tpu_program.py"])
    with pytest.raises(SystemExit, match="pip install libtpu"):
        tpu_program.main()
