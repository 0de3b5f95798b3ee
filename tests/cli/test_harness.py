"""`modjax evaluate` with tasks of lm-eval: files of your own, results, samples, and what it says of wrong names."""

import json

import pytest
import yaml

MANAGER = pytest.importorskip("lm_eval.tasks").TaskManager


def only_ones_own(include_path=None, include_defaults=False):
    """lm-eval's manager without its own tasks, whose files take ten seconds to read."""
    return MANAGER(include_path=include_path, include_defaults=False)


@pytest.fixture
def config_of(config_file, tmp_path, monkeypatch):
    """The config file with tasks of lm-eval, from a folder of one task file."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("lm_eval.tasks.TaskManager", only_ones_own)
    folder = tmp_path / "task files"
    folder.mkdir()
    rows = [{"query": f"what is {word}", "choices": ["red", "blue dog", "no"], "gold": 1} for word in ("cat", "bird")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "tiny_choices",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_target": "{{gold}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(task))
    options = {"tasks": ("tiny_choices",), "include_path": str(folder), "num_fewshot": None, "limit": 0, "batch": 4}
    options |= {"max_length": None, "max_gen_toks": 8, "seed": 0, "chat": False, "system": None, "bootstrap": 0}
    path = tmp_path / "harness_config.py"
    path.write_text(
        f"{config_file.read_text()}\n"
        "own = get_config\n"
        "def get_config():\n"
        "    config = own()\n"
        f"    config.harness = {options!r}\n"
        "    return config\n"
    )
    return path


def test_its_results_have_lm_evals_form_and_the_method(modjax, config_of, library, tmp_path):
    workdir = tmp_path / "arrow"
    given = ("evaluate", f"--config={config_of}", f"--config.library={library}", f"--workdir={workdir}")
    code, out, err = modjax(*given)
    assert code == 0, err
    assert "tiny_choices" in out and "acc_norm" in out
    found = json.loads((workdir / "results.json").read_text())
    assert found["method"] == {"name": "arrow", "router": {"name": "arrow"}}
    assert found["config"]["experts"] == ["a", "b", "c"] and found["n-samples"]["tiny_choices"]["effective"] == 2
    samples = json.loads((workdir / "samples_tiny_choices.json").read_text())
    assert [sample["target"] for sample in samples] == [1, 1]
    code, _, err = modjax(*given)
    assert code == 0, err
    again = json.loads((workdir / "results.json").read_text())
    assert again["results"] == found["results"] and list(workdir.glob("answers*.db"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tasks", "tiny_choice", "config.harness.tasks: unknown task 'tiny_choice'; did you mean 'tiny_choices'?"),
        ("include_path", "nowhere", "config.harness.include_path = 'nowhere'; expected a folder of task files"),
        ("tasks", "()", "config.harness.tasks is empty; expected names of tasks of lm-eval"),
    ],
)
def test_wrong_names_are_told_before_anything_is_read(modjax, config_of, tmp_path, key, value, words):
    code, _, err = modjax(
        "evaluate", f"--config={config_of}", f"--config.harness.{key}={value}", f"--workdir={tmp_path / 'new'}"
    )
    assert code == 2 and words in err
    assert not (tmp_path / "new").exists()
