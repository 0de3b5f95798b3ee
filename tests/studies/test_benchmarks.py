"""Benchmarks of a method in a folder: what it leaves, what it takes up again, and what it refuses to mix."""

import json

import numpy as np
import pytest

from modjax import studies
from modjax.errors import InputError
from modjax.eval.benchmarks import scoring
from modjax.eval.benchmarks.benchmark import Benchmark

NAMES = ("piqa", "openbookqa")


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Three questions a part."""
    monkeypatch.setattr(Benchmark, "part", 3)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"goal": f"what is {word}", "sol1": "yes", "sol2": "no no", "label": 0} for word in ["red", "cat"] * 4]
    (folder / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"query": "what is the", "choices": ["cat", "red", "dog"], "gold": i % 3} for i in range(4)]
    (folder / "openbookqa.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture
def run(model, library, tasks, data, tmp_path):
    """Scores Arrow, or another method, in one folder."""

    def run(method=None, names=NAMES, folder="out", **settings):
        experiment = studies.Experiment(model, tasks, {"library": library}, workdir=tmp_path / folder)
        given = {"router": "arrow"} if method is None else method
        return studies.benchmarks(experiment, given, data, names, progress=False, **settings)

    return run


def test_it_leaves_each_part_and_a_summary(run, tmp_path):
    found = run()
    assert {name: one.examples for name, one in found.items()} == {"piqa": 8, "openbookqa": 4}
    parts = sorted(path.name for path in (tmp_path / "out" / "piqa").iterdir())
    assert parts == ["inputs.json", "part-0000.json", "part-0001.json", "part-0002.json"]
    summary = json.loads((tmp_path / "out" / "benchmarks.json").read_text())
    assert summary["mean"] == np.mean([one.headline for one in found.values()])
    assert summary["benchmarks"]["piqa"]["acc_token"] == found["piqa"].headline
    assert "each" not in summary["benchmarks"]["piqa"]
    inputs = json.loads((tmp_path / "out" / "piqa" / "inputs.json").read_text())
    assert {"version", "questions", "chat", "line", "libraries", "model"} <= set(inputs)


def test_a_killed_run_goes_on_where_it_was(run, tmp_path, monkeypatch):
    whole, scored, one = run(folder="whole"), [], scoring._scored

    def cut_short(model, method, own, questions, given):
        scored.append(own.name)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return one(model, method, own, questions, given)

    monkeypatch.setattr(scoring, "_scored", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert scored == ["piqa"] * 3 and not (tmp_path / "out" / "benchmarks.json").exists()
    again = run()
    assert scored[3:] == ["piqa", "openbookqa", "openbookqa"]
    assert {name: own.as_json() for name, own in again.items()} == {name: own.as_json() for name, own in whole.items()}
    run()
    assert len(scored) == 6


def test_benchmarks_may_be_added(run, monkeypatch):
    run(names=["piqa"])
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_scored", None)  # nothing is scored again
        assert set(run(names=["piqa"])) == {"piqa"}
    assert list(run(names=["openbookqa", "piqa"])) == ["openbookqa", "piqa"]


def test_other_inputs_are_refused_and_change_nothing(run, data, tmp_path):
    run()
    with pytest.raises(InputError, match=r"inputs.json: this folder was made with inputs.line.router.name = 'arrow'"):
        run({"router": "uniform"})
    with pytest.raises(InputError, match="inputs.chat = False"):
        run(chat=True)
    with pytest.raises(InputError, match="inputs.questions = "):
        run(examples=2)
    (data / "piqa.jsonl").write_text((data / "piqa.jsonl").read_text().replace("no no", "no"))
    with pytest.raises(InputError, match="piqa/inputs.json: this folder was made with inputs.questions"):
        run()
    (tmp_path / "out" / "piqa" / "inputs.json").unlink()
    with pytest.raises(InputError, match="is missing, so it is not known what .*part-0000.json was made of"):
        run()


def test_the_base_model_reads_no_tasks(model, data, tmp_path):
    def tasks():
        raise AssertionError

    experiment = studies.Experiment(model, tasks, workdir=tmp_path / "base")
    found = studies.benchmarks(experiment, {"library": ""}, data, ["piqa"], progress=False)
    assert found["piqa"].examples == 8


def test_all_is_checked_before_anything_is_scored(run, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_scored", None)
    with pytest.raises(InputError, match="no benchmark 'piqua'"):
        run(names=["piqa", "piqua"])
    with pytest.raises(InputError, match="'humaneval' runs the programs that the model writes"):
        run(names=())
    with pytest.raises(InputError, match="has no boolq, as a folder or with one of"):
        run(names=["piqa", "boolq"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="expected an experiment with a workdir"):
        studies.benchmarks(studies.Experiment(lambda: None, lambda: None), {})
