"""The study of Arrow against training on a tiny model. No figure is asserted."""

import arrow_training
from tiny import model, tasks  # noqa: F401, fixtures

from modjax import data


def test_experts_are_trained_on_all_of_its_tasks():
    assert len(data.load("open48", only=arrow_training.TASKS).training) == len(arrow_training.TASKS) == 8


def test_each_library_has_its_figures(model, tasks, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(arrow_training.SETTINGS, "length", 32)
    found = arrow_training.compared(model, tasks.training, tmp_path, ((1, 2), (2, 3)), 2)
    assert [(one["steps"], one["rank"]) for one in found["libraries"]] == [(1, 2), (2, 3)]
    first, second = found["libraries"]
    assert first["loss"].keys() == {"mean", *arrow_training.ARROWS, "oracle"}
    # After one step A is at its start, since B was zero.
    assert first["prototype_in_first_a"] > 0.99999 and first["prototype_in_first_a"] > second["prototype_in_first_a"]
    assert 0 <= first["prompts_right_per_place"] <= first["best_place"]["prompts_right"] <= 1
    assert arrow_training.compared(model, tasks.training, tmp_path, ((1, 2),), 2)["libraries"] == [first]
