"""The tables of a study on results written by hand, of seeds that were run one at a time."""

import json

import numpy as np
import pytest
import study_tables

from modjax.eval.benchmarks.result import Result
from modjax.eval.score import Score, as_json
from modjax.studies.benchmarks import folder_of
from modjax.studies.stages import Stages

METHODS = ("shared", "mu (private)", "Arrow (private)")
TASKS = {"in_distribution": ("a", "b"), "held_out": ("c", "d")}


@pytest.fixture
def workdirs(tmp_path):
    """Studies of one seed each, in which the losses of a method are 1 and 2 for seed 0, and 2 and 3 for seed 1.

    Seed 0 alone has adaptation, of which its last run was not asked.
    """
    return [_study(tmp_path / f"study-{seed}", seed) for seed in (0, 1)]


def _study(folder, seed):
    folder.mkdir()
    stages, new = Stages(folder / f"seed-{seed}"), Stages(folder / f"seed-{seed}" / "new")
    names = METHODS + (() if seed else study_tables.ADAPTED)
    for name in names:
        tasks = TASKS["held_out"] + (() if name.startswith("adapt") else TASKS["in_distribution"])
        _write(stages.path(f"score {name}"), as_json({task: _score(seed) for task in tasks}))
    _write(stages.path("routing Arrow (private)"), {"accuracy": 0.25 + seed / 2})
    _write(new.path("shared"), as_json({"e": _score(seed)}))
    _write(stages.path("stages"), {})
    for name, right in (("shared", [1, 0, 0, 0]), ("mu (private)", [1, 1, 0, 0])):
        piqa = folder_of(stages.folder, name, {}) / "piqa"
        for number, own in enumerate((right[:3], right[3:])):
            part = Result("piqa", 1, "acc_token", {"acc_token": np.array(own)}, ("",) * len(own), [None] * len(own))
            _write(piqa / f"part-{number:04}.json", part.as_json())
    done = {
        "tasks": [{"name": name, "held_out": part == "held_out"} for part, own in TASKS.items() for name in own],
        "claims": [{"claim": "a", "verdict": "held", "value": 0.5, "low": 0.25, "high": 0.75}],
        "chosen": {str(seed): dict.fromkeys(METHODS, {})},
        "config": {"study": {"methods": dict.fromkeys((*METHODS, *study_tables.ADAPTED), {})}},
    }
    _write(folder / "study.json", done)
    return folder


def _score(seed):
    values = {"loss": np.array([1.0, 2.0]) + seed, "exact_match": np.zeros(2), "rouge_l": np.full(2, 0.5)}
    return Score(values, np.ones(2, int))


def _write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_seeds_of_several_studies_are_one_table(workdirs, tmp_path, monkeypatch, capsys):
    results = tmp_path / "results"
    for folder in workdirs:
        flags = f"--study={folder}", f"--results={results}", f"--picture={tmp_path / 'gains'}"
        monkeypatch.setattr("sys.argv", ["study_tables.py", *flags])
        study_tables.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| shared | 1.500 ±")  # of the first seed
    (both,) = (n for n, line in enumerate(lines) if line.startswith("| shared | 2.000 ±"))
    assert lines[both].endswith("| 50.0 ± 0.0 |  |")
    assert lines[both + 2].startswith("| Arrow (private) | 2.000") and lines[both + 2].endswith("| 50 % |")
    found = "\n".join(lines[both:])
    assert "| a. Spearman's correlation of similarity and gain | held: 0.500 [0.250, 0.750] |" in found
    assert "| c, mu. gain of Arrow over mu, held out | undecided: 0.000 [0.000, 0.000] |" in found
    assert "| b. gain of MBC over random, each task with its cluster's expert | not measured | not measured |" in found
    (adapted,) = (line for line in lines[both:] if line.startswith("| LoRA |"))
    assert adapted.startswith("| LoRA | 1.500 ±")
    assert found.count("| e, 10. gain of the adapted MBC library over LoRA from scratch | undecided: 0.000") == 1
    assert "| shared | 2.000 [1.000, 3.000] |  |" in found  # the new task
    assert "| mu (private) | 50.0 ± 50.0 | 25.0 [0.0, 75.0] | 50 |" in found
    drawing = (tmp_path / "gains.svg").read_text()
    assert "mu (private)" in drawing and "more new tasks" in drawing and "adapt" not in drawing
