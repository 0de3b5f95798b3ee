"""SIGTERM during a run: it saves, stops, and goes on from there, with the result of a run that was never stopped."""

import os
import signal
import sys
import threading

import jax
import numpy as np
import pytest

from modjax.cli import main
from modjax.errors import Stopped
from modjax.parallel import preemption
from modjax.train import reports


@pytest.fixture
def terminate_at(monkeypatch):
    """terminate_at(n): the process gets SIGTERM when step n is logged, which is during step n + 1."""
    write = reports.MetricsLog.write

    def at(number):
        def writing(log, kind, global_step, *values):
            write(log, kind, global_step, *values)
            if global_step == number:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(reports.MetricsLog, "write", writing)

    yield at
    monkeypatch.setattr(reports.MetricsLog, "write", write)


def test_a_stopped_run_goes_on_to_the_same_end(train, tmp_path, terminate_at):
    settings = {"save_every": 100, "log_every": 1}
    whole = train(workdir=tmp_path / "whole", **settings)
    terminate_at(2)
    with pytest.raises(Stopped, match="stopped by SIGTERM after step 3 of 6; the same command goes on from there"):
        train(workdir=tmp_path / "stopped", **settings)
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == ["3"]
    terminate_at(None)
    resumed = train(workdir=tmp_path / "stopped", **settings)
    for leaf, expected in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(leaf, expected)
    lines = [(path / "metrics.jsonl").read_text() for path in (tmp_path / "whole", tmp_path / "stopped")]
    assert lines[0] == lines[1]


def test_without_a_folder_nothing_is_saved(train, tmp_path, terminate_at):
    terminate_at(1)
    with pytest.raises(Stopped, match="after step 2 of 6; nothing was saved"):
        train(workdir=tmp_path, save_every=0, log_every=1)


def test_afterwards_the_signal_does_what_it_did_before():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(True))
    try:
        with preemption.watched() as must_stop:
            assert not must_stop(1)
            os.kill(os.getpid(), signal.SIGTERM)
            assert must_stop(2) and not seen
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_watched():
    found = []

    def watch():
        with preemption.watched() as must_stop:
            found.append(must_stop(1))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert found == [False]


def test_the_command_line_exits_with_a_code_that_launchers_know(monkeypatch, capsys):
    def stopped(*_):
        raise Stopped("stopped by SIGTERM after step 3 of 6")

    monkeypatch.setattr(main, "_run", stopped)
    monkeypatch.setattr(sys, "argv", ["modjax", "train"])
    with pytest.raises(SystemExit) as exit:
        main.main()
    assert exit.value.code == 75
    assert capsys.readouterr().err == "modjax: stopped by SIGTERM after step 3 of 6\n"
