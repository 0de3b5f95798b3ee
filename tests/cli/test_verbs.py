"""Every verb on a tiny model: what it writes, what it prints, and that it resumes."""

import json
import warnings

import pytest

from modjax.experts.library import Library
from modjax.experts.store import drop


@pytest.fixture
def trained(modjax, config_file, tmp_path):
    code, _, err = modjax("train", f"--config={config_file}", f"--workdir={tmp_path / 'private'}")
    assert code == 0, err
    return tmp_path / "private"


def test_train_writes_a_library_and_its_config(trained):
    assert Library.load(trained / "library").names == ("a", "b", "c")
    assert json.loads((trained / "config.json").read_text())["train"]["steps"] == 4
    steps = [json.loads(line)["step"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_train_again_does_nothing(trained, modjax, config_file):
    before = (trained / "library" / "library.json").stat().st_mtime_ns
    code, out, _ = modjax("train", f"--config={config_file}", f"--workdir={trained}")
    assert code == 0
    assert "complete" in out
    assert (trained / "library" / "library.json").stat().st_mtime_ns == before


def test_cluster_then_train_on_the_clusters(trained, modjax, config_file, tmp_path):
    library = f"--config.library={trained / 'library'}"
    code, out, err = modjax("cluster", f"--config={config_file}", library, f"--workdir={tmp_path / 'clusters'}")
    assert code == 0, err
    assert "cluster 0:" in out
    clusters = tmp_path / "clusters" / "clusters.json"
    found = json.loads(clusters.read_text())
    assert sorted(task for own in found["groups"].values() for task in own) == ["a", "b", "c"]
    code, _, err = modjax(
        "train", f"--config={config_file}", f"--config.groups={clusters}", f"--workdir={tmp_path / 'mbc'}"
    )
    assert code == 0, err
    assert Library.load(tmp_path / "mbc" / "library").names == ("cluster 0", "cluster 1")


def test_evaluate_the_library_and_the_base(trained, modjax, config_file, tmp_path):
    library = f"--config.library={trained / 'library'}"
    code, out, err = modjax("evaluate", f"--config={config_file}", library, f"--workdir={tmp_path / 'arrow'}")
    assert code == 0, err
    assert "in distribution" in out and "held out" in out
    scores = json.loads((tmp_path / "arrow" / "scores.json").read_text())
    assert set(scores["tasks"]) == {"a", "b", "c", "d"}
    code, out, err = modjax("evaluate", f"--config={config_file}", f"--workdir={tmp_path / 'base'}")
    assert code == 0, err
    assert out.startswith("base")


def test_generate_prints_an_answer_a_prompt(trained, modjax, config_file, tmp_path):
    code, out, err = modjax(
        "generate", f"--config={config_file}", f"--config.library={trained / 'library'}",
        f"--workdir={tmp_path / 'answers'}", "--prompt=what is red", "--prompt=what is the name of this cat",
    )  # fmt: skip
    assert code == 0, err
    assert len(out.splitlines()) == 2


def test_demo_writes_the_report_and_resumes(modjax, config_file, tmp_path):
    arguments = ("demo", f"--config={config_file}", f"--workdir={tmp_path / 'demo'}", f"--report={tmp_path / 'report'}")
    code, out, err = modjax(*arguments)
    assert code == 0, err
    assert "Arrow (MBC)" in out
    page = tmp_path / "report" / "index.html"
    assert "Arrow (private)" in page.read_text()
    stages = (tmp_path / "demo" / "stages.json").read_text()
    rows = json.loads((tmp_path / "demo" / "results.json").read_text())["methods"]
    training = {row["name"]: row["seconds"]["train"] for row in rows}
    all_three = training["oracle (private)"] + training["shared"] + training["Arrow (MBC)"]
    assert training["base"] is None and training["confident, else general"] == pytest.approx(all_three)
    page.unlink()
    code, again, _ = modjax(*arguments)
    assert code == 0
    assert page.exists()
    assert (tmp_path / "demo" / "stages.json").read_text() == stages  # nothing was done twice
    drop(tmp_path / "demo" / "private" / "library", "c")
    code, _, err = modjax(*arguments)
    assert code == 2 and "trained.json: this folder was made with trained.private = '" in err
    assert out.splitlines()[-12:-1] == again.splitlines()[-12:-1]
    code, out, _ = modjax("report", *arguments[2:])
    assert code == 0
    assert "Arrow (MBC)" in out


def test_warnings_are_lines_of_text(modjax, monkeypatch, tmp_path):
    def run(config, workdir, flags):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("a key of\nconfig.json is ignored", stacklevel=1)

    monkeypatch.setattr("modjax.cli.report.run", run)
    code, _, err = modjax("report", f"--workdir={tmp_path}")
    assert (code, err) == (0, "modjax: warning: a key of config.json is ignored\n")
