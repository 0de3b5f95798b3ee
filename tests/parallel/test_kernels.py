"""Cycles of attention kernels, read from machine code."""

from modjax.parallel.kernels import Kernel, kernel, kernels


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


def test_a_kernel_without_loops_over_blocks_is_left_out(tmp_path):
    (tmp_path / "3-attention_forward-01-final_bundles.txt").write_text(bundles(("  ", "", 9), ("LB", ">", 300)))
    assert kernels(tmp_path) == {}
