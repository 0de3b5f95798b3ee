"""The sizes and arguments of the step; compiling it for a TPU needs libtpu."""

import jax
import pytest
import tpu_program

from modjax.parallel import aot


def test_the_step_is_traced_from_shapes_alone():
    """Up to the compilation, on the eight devices of the tests; all weights of Phi-2 would be 5 GB."""
    arguments = tpu_program.arguments(["--mesh", "4", "2", "1", "--experts=4", "--rows=2", "--length=1024"])
    state, metrics = tpu_program.job(arguments, jax.devices()).traced().out_info
    assert metrics.loss_E.shape == (4,)
    assert {leaf.shape[1] for leaf in jax.tree.leaves(state.trained)} == {4}


def test_rows_of_one_block_are_refused(capsys):
    with pytest.raises(SystemExit):
        tpu_program.arguments(["--length=512"])
    assert "--length=512: expected more than 512" in capsys.readouterr().err


@pytest.mark.parametrize(("path", "part"), [("ops/attention_tpu.py", "attention"), ("ops/norms.py", "rest")])
def test_parts_of_files(path, part):
    assert tpu_program.part_of(path) == part


def test_what_is_described_of_a_step():
    line = '%a = f32[8]{0} add(%x, %x), backend_config={"estimated_cycles":"10"}'
    memory = jax.jit(lambda: 1.0).lower().compile().memory_analysis()
    step = aot.Compiled(f"ENTRY %main () -> f32[8] {{\n  {line}\n}}\n", memory, {}, [])
    found = tpu_program.described(step, 1024)
    assert found["cycles"] == {"rest": 10} and found["shares"] == {"rest": 1.0}
