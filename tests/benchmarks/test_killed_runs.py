"""The soak test of killed runs with few kills; `benchmarks/killed_runs.py` takes fifty."""

import json
import os
import pathlib
import subprocess
import sys

import killed_runs
import pytest


def test_what_a_killed_run_was_doing_is_seen_from_its_files(tmp_path):
    assert killed_runs.phase(tmp_path) == "before the first checkpoint" and killed_runs.newest(tmp_path) == 0
    (tmp_path / "checkpoints" / "9").mkdir(parents=True)
    (tmp_path / "checkpoints" / "10").mkdir()
    assert killed_runs.phase(tmp_path) == "between checkpoints, or starting" and killed_runs.newest(tmp_path) == 10
    (tmp_path / "checkpoints" / "11.orbax-checkpoint-tmp").mkdir()
    assert killed_runs.phase(tmp_path) == "writing a checkpoint" and killed_runs.newest(tmp_path) == 10


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("--config.train.slots=2",)], ids=["at once", "in waves"])
def test_runs_that_are_killed_end_equal(settings):
    root = pathlib.Path(killed_runs.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": "", "JAX_ENABLE_COMPILATION_CACHE": "true"}
    command = [sys.executable, killed_runs.__file__, "--kills=4", "--steps=20", *settings]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["kills"] == 4 and found["runs"] >= 1 and found["unequal"] == 0
