"""The timing, memory and report of the benchmarks."""

import json
import mmap
import time

import jax.numpy as jnp
import measuring
import numpy as np
import pytest


def test_sides_alternate():
    calls = []
    seconds = measuring.in_turn({side: lambda side=side: calls.append(side) for side in "ab"}, repeats=2)
    assert calls == ["a", "b", "a", "b"] and [len(own) for own in seconds.values()] == [2, 2]


def test_rates_and_ratios_are_of_medians():
    seconds = {"ours": [1.0, 2.0, 9.0], "theirs": [4.0, 6.0, 5.0]}
    assert measuring.rates(seconds, 10)["ours"] == {"per_second": 5.0, "runs": [10.0, 5.0, 10 / 9]}
    assert measuring.ratio(seconds, "ours", over="theirs") == 2.5


def test_time_is_that_of_the_call():
    seconds, returned = measuring.timed(lambda: time.sleep(0.02) or "done")
    assert returned == "done" and seconds >= 0.02


def test_memory_is_what_the_run_added():
    held = []

    def run():
        pages = np.frombuffer(mmap.mmap(-1, 16 * 2**20), np.uint8)  # not of the heap, which may have room for them
        pages.fill(1)
        held.append(pages)

    assert 30 < measuring.peak_memory(lambda: run) < 100, "two runs that keep 16 MiB each"


def test_the_peak_is_that_of_a_product():
    assert 1e8 < measuring.matmul_peak(jnp.float32, size=128) < 1e14


def test_a_report_names_command_machine_and_versions(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks/speed.py", "--small", "--out=somewhere"])
    measuring.report({"ratio": 2.0}, ("numpy",), tmp_path / "new" / "speed.json")
    found = json.loads((tmp_path / "new" / "speed.json").read_text())
    assert found == json.loads(capsys.readouterr().out)
    assert (found["benchmark"], found["command"]) == ("speed", "python benchmarks/speed.py --small")
    assert found["ratio"] == 2.0 and found["cpu_count"] >= 1
    assert {"jax", "modjax", "numpy"} == set(found["versions"]) - {"jaxlib"}


@pytest.mark.parametrize("flags", [[], ["--small", "--repeats=1"]])
def test_every_benchmark_has_the_same_flags(flags):
    args = measuring.parser("What is measured.").parse_args(flags)
    assert (args.small, args.repeats) == ((True, 1) if flags else (False, 3))
