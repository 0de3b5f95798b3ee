"""The benchmark of new tasks on a tiny study. No figure is asserted."""

import new_tasks
import numpy as np
from tiny import model, tasks  # noqa: F401, fixtures

from modjax import train_library
from modjax.data.tasks import Tasks
from modjax.eval import Sample
from modjax.studies import Experiment


def test_every_method_is_compared_with_every_other(model, tasks, tmp_path):  # noqa: F811
    training = {"length": 32, "steps": 1, "rank": 2, "system": ""}
    train_library(model, tasks.training, **training).save(tmp_path / "private")
    sample = Sample(examples=2, length=32, system="")
    experiment = Experiment(model, tasks.training, {"private": tmp_path / "private"}, sample)
    lines = {"base": {"library": ""}, "mu": {"library": "private", "router": {"name": "uniform"}}}
    new = new_tasks.new_tasks(Tasks(tasks.values()), tasks.training)
    assert list(new) == ["d"] and new["d"].held_out
    runs = [new_tasks.scores(experiment, tmp_path / "new", lines, new, sample) for _ in range(2)]
    assert all(np.array_equal(runs[0][name]["d"]["loss"], runs[1][name]["d"]["loss"]) for name in lines)
    found = new_tasks.table(runs, new)
    assert list(found["gain"]) == ["mu over base"] and found["loss"].keys() == lines.keys()
