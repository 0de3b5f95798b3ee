"""The metrics file: one line per step, also after a kill."""

import numpy as np

from modjax.train.metrics import MetricsLog, read


def write(folder, steps, done=0):
    with MetricsLog(folder, ("a", "b"), done) as log:
        for step in steps:
            log.write("train", step, {"a": step, "b": step}, {"loss": np.asarray([step, 0.5], np.float32)})


def test_a_line_names_experts(tmp_path):
    write(tmp_path, [1])
    assert read(tmp_path / "metrics.jsonl") == [
        {"kind": "train", "global_step": 1, "step": 1, "loss": {"a": 1.0, "b": 0.5}}
    ]


def test_resuming_drops_the_lines_after_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3])
    write(tmp_path, [3, 4], done=2)
    assert [line["step"] for line in read(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [line["step"] for line in read(path)] == [1]
    write(tmp_path, [2], done=1)
    assert [line["step"] for line in read(path)] == [1, 2]


def test_without_a_folder_nothing_is_kept():
    write(None, [1])


def test_a_missing_file_has_no_lines(tmp_path):
    assert read(tmp_path / "metrics.jsonl") == []
