"""`modjax evaluate` with benchmarks: the table, the files, a library, and the same command again."""

import json
import pathlib

import pytest

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "benchmarks.py"


@pytest.fixture
def config(checkpoint, library, tasks_file, tmp_path):
    """--config for the tiny model, library, and the files of two benchmarks."""
    data = tmp_path / "data"
    data.mkdir()
    rows = [{"goal": f"what is {word}", "sol1": "yes", "sol2": "no no", "label": 0} for word in ("red", "cat", "dog")]
    (data / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"passage": "red is big", "question": "is red big", "answer": True}] * 2
    (data / "boolq.json").write_text(json.dumps(rows))
    return f"--config={CONFIG}:model={checkpoint},tasks={tasks_file},data={data},library={library}"


def test_it_prints_a_table_and_resumes(modjax, config, tmp_path):
    command = ("evaluate", config, "--config.benchmarks.names=('piqa','boolq')", f"--workdir={tmp_path / 'out'}")
    code, out, err = modjax(*command)
    assert code == 0, err
    head, *lines, last = out.splitlines()
    assert head.split() == ["benchmark", "questions", "score", "error", "metric", "others"]
    found = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    for line, (name, n) in zip(lines, [("piqa", 3), ("boolq", 2)], strict=True):
        own = found["benchmarks"][name]
        assert line.split()[:5] == [
            name, str(n), f"{100 * own['acc_token']:.1f}", f"{100 * own['acc_token_error']:.1f}", "acc_token",
        ]  # fmt: skip
        assert f"acc_norm {100 * own['acc_norm']:.1f}" in line
    assert last.startswith(f"mean of 2: {100 * found['mean']:.1f} %")
    part = tmp_path / "out" / "piqa" / "part-0000.json"
    before = part.stat().st_mtime_ns
    assert modjax(*command)[:2] == (0, out) and part.stat().st_mtime_ns == before


def test_more_benchmarks_may_follow_but_no_other_settings(modjax, config, tmp_path):
    workdir = f"--workdir={tmp_path / 'out'}"
    assert modjax("evaluate", f"{config},names=piqa", workdir)[0] == 0
    code, out, _ = modjax("evaluate", f"{config},names=boolq", workdir)
    assert code == 0 and "boolq" in out and "piqa" not in out
    code, _, err = modjax("evaluate", f"{config},names=piqa,evaluate.seed=3", workdir)
    assert code != 0 and "config.evaluate.seed = 0; found 3" in err


def test_the_limits_of_the_config_are_the_defaults(monkeypatch):
    from modjax.cli import config_file
    from modjax.eval.execution import Limits

    monkeypatch.syspath_prepend(str(CONFIG.parent))
    assert Limits(**config_file.load(str(CONFIG)).benchmarks.limits) == Limits()


def test_programs_are_not_run_unasked(modjax, config, tmp_path):
    code, _, err = modjax("evaluate", config, f"--workdir={tmp_path / 'out'}")
    assert code != 0 and "'humaneval' runs the programs that the model writes; expected execute=True" in err
