"""The benchmark of MBC at a tiny size. No timing is asserted."""

import mbc_scale as benchmark
import numpy as np
import pytest


@pytest.fixture
def args():
    return benchmark.arguments(["--small"])


def test_both_sides_cluster_the_same_numbers(args):
    stacked = [benchmark.stacked(args, factor, width) for factor, (_, width) in enumerate(benchmark.factors(args))]
    rows_EP = np.concatenate([np.swapaxes(x_LERW, 0, 1).reshape(args.experts, -1) for x_LERW in stacked], axis=1)
    np.testing.assert_array_equal(benchmark.flattened(args), rows_EP)


def test_all_sides_find_what_was_planted(args):
    args.width = 512  # enough numbers to tell the planted clusters from noise
    found, outputs = {}, {}
    for side, run in benchmark.SIDES.items():
        figures, labels, similarity_EE = run(args)
        found[side], outputs[side] = figures, {"labels": labels, "similarity": similarity_EE}
    result = benchmark.compared(found, outputs, benchmark.planted(args))
    assert result["adjusted_rand_planted"] == {"modjax": 1.0, "homemade": 1.0, "exact": 1.0}
    for error in result["similarity_error"].values():  # all components are kept
        assert error["mean"] <= error["largest"] < 1e-5
    assert set(result["ratios"]) == {"seconds", "seconds_first", "cpu_seconds", "peak_gib"}
