"""What validation chooses for the demo, on a tiny model and on scores made by hand."""

import dataclasses

import demo_seeds
import numpy as np
from ml_collections import ConfigDict
from tiny import model, tasks  # noqa: F401, fixtures

from modjax.data.tasks import Tasks
from modjax.eval.score import Score
from modjax.metrics import METRICS
from modjax.studies.demo import METHODS


def _run(losses):
    return {demo_seeds.LED: {"a": Score({metric.name: losses for metric in METRICS}, np.ones(len(losses), int))}}


def test_more_steps_are_taken_only_if_they_help():
    rng = np.random.default_rng(0)
    loss = rng.uniform(1, 2, 50)
    runs = {8: _run(loss + 0.5), 16: _run(loss + rng.normal(0, 0.2, 50)), 32: _run(loss)}
    taken, found = demo_seeds.fewest_steps(runs, ["a"])
    assert taken == 16 and list(found) == [8, 16, 32] and found[8]["above_lowest"]["low"] > 0


def test_the_demo_is_repeated_and_ordered(model, tasks, tmp_path):  # noqa: F811
    tasks = Tasks(map(_with_validation, tasks.values()))
    config = ConfigDict(
        {
            "train": {"length": 32, "steps": 1, "rank": 2, "system": "", "batch": 1},
            "cluster": {"clusters": 2, "seed": 42},
            "demo": {"rows": {"mbc": 1, "shared": 1}},
            "evaluate": {"examples": 2, "length": 32, "system": "", "max_new_tokens": 2},
        }
    )
    demos = demo_seeds.Demos(model, tasks, config, tmp_path)
    found = demo_seeds.chosen(demos, tasks, (1,), (0, 1))
    assert sorted(found["order"]) == sorted(METHODS) and found["steps"] == 1
    assert list(found["families"]) == ["words"]
    assert found["test"]["in_distribution"]["share_of_gap"].keys() == METHODS.keys()
    assert found["test"]["held_out"]["means"].keys() == METHODS.keys() - {"oracle (private)"}
    assert demo_seeds.chosen(demos, tasks, (1,), (0, 1)) == found


def _with_validation(task):
    validation = [dataclasses.replace(one, split="validation") for one in task.split("test")]
    return dataclasses.replace(task, examples=(*task.examples, *validation), family="words")
