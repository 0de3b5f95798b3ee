"""The benchmark of MBC at a tiny size. No timing is asserted."""

import importlib.util
import pathlib

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "mbc_scale.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("mbc_scale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def args(benchmark):
    sizes = ("experts=12", "layers=2", "width=32", "clusters=3", "components=64")
    return benchmark._arguments([f"--{size}" for size in sizes])


def test_both_sides_cluster_the_same_numbers(benchmark, args):
    stacked = [benchmark.stacked(args, factor, width) for factor, (_, width) in enumerate(benchmark.factors(args))]
    rows_EP = np.concatenate([np.swapaxes(x_LERW, 0, 1).reshape(args.experts, -1) for x_LERW in stacked], axis=1)
    np.testing.assert_array_equal(benchmark.flattened(args), rows_EP)


def test_all_sides_find_what_was_planted(benchmark, args):
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
