"""Epochs: whatever is trained, each member takes as many steps as its own rows need."""

import dataclasses

import pytest

from modjax import adapt
from modjax.data.tasks import Tasks
from modjax.experts.library import Library
from modjax.routing import phatgoose
from modjax.train.lora import train_library
from modjax.train.run import Run

SETTINGS = {"epochs": 2, "batch": 2, "length": 32, "dropout": 0.0, "progress": False}


@pytest.fixture
def unequal(word_tasks):
    """Two tasks, the first with few of its examples."""
    small, large = adapt.few(word_tasks.select(["copy"]), examples=3), word_tasks.select(["sort"])
    return Tasks([small["copy"], large["sort"]])


@pytest.fixture
def runs(monkeypatch):
    """[({member: its rows}, {member: its steps})] of each run."""
    found, train = [], Run.train

    def watched(self, progress):
        results = train(self, progress)
        steps = {name: int(results[number].steps) for number, name in enumerate(self.names)}
        found.append((self.inputs.rows.n_rows, steps))
        return results

    monkeypatch.setattr(Run, "train", watched)
    return found


def with_gates(model, library, tasks):
    infos = [dataclasses.replace(info, tasks=(task,)) for info, task in zip(library.infos, tasks, strict=False)]
    return phatgoose(Library(library[["a", "b"]].loras, tuple(infos)), model, tasks, **SETTINGS)


KINDS = {
    "poly": lambda model, library, tasks: adapt.poly(model, library, tasks, **SETTINGS),
    "lora": lambda model, library, tasks: adapt.lora(model, tasks, library["a"], **SETTINGS),
    "cat": lambda model, library, tasks: adapt.cat(
        model, library, tasks, groups={name: (name,) for name in tasks}, **SETTINGS
    ),
    "shared A": lambda model, library, tasks: train_library(model, tasks, shared_a=True, rank=2, **SETTINGS),
    "gates": with_gates,
}


@pytest.mark.parametrize(
    "kind", ["poly", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind != "poly")]
)
def test_each_member_ends_by_itself(word_model, library, unequal, runs, kind):
    KINDS[kind](word_model, library, unequal)
    ((n_rows, steps),) = runs
    assert list(steps.values()) == [-(-2 * rows // 2) for rows in n_rows.values()]
    assert len(set(steps.values())) == 2
