"""Epochs: each expert has steps of its own, by its rows, and ends by itself, as if it were trained alone."""

import pytest

from modjax.errors import InputError
from modjax.parallel.mesh import make_mesh
from modjax.train import epochs, metrics, run
from modjax.train.full import train_full
from modjax.train.inputs import Inputs
from modjax.train.poly import train_poly
from modjax.train.settings import Settings
from modjax.train.slots import Slots, together
from tests.meshes import on
from tests.train.test_library import assert_close, equal

HERE = frozenset([0])
GROUPS = {"copy": ("copy",), "three": ("reverse", "sort", "count"), "two": ("copy", "sort")}
EPOCHS = {"epochs": 1, "steps": 1000}


@pytest.mark.parametrize(
    ("given", "batch", "n_rows", "expected"),
    [(1, 4, 8, 2), (1, 4, 9, 3), (2, 4, 9, 5), (1, 16, 3, 1), (6, 16, 3, 2), (0.1, 1, 30, 3), (1e-9, 1, 3, 1)],
)
def test_steps_are_the_fewest_that_read_as_many_rows(given, batch, n_rows, expected):
    assert epochs.steps(Settings(epochs=given, batch=batch), n_rows) == expected


def test_more_steps_than_can_be_counted_are_refused():
    with pytest.raises(InputError, match="epochs=1e[+]09: 3000000000 steps over 6 rows; expected at most 2147483647"):
        epochs.steps(Settings(epochs=1e9, batch=2), 6)


def test_without_epochs_the_steps_are_given():
    assert epochs.steps(Settings(steps=7), 100) == 7
    due = [step for step in range(1, 8) if epochs.is_due(Settings(evaluate_every=3), step, 100)]
    assert due == [3, 6]


@pytest.mark.parametrize(
    ("every", "batch", "n_rows", "expected"),
    [(1, 4, 8, [2, 4, 6]), (2, 4, 8, [4, 8]), (1, 4, 9, [3, 5, 7]), (1, 16, 3, [1, 2, 3]), (6, 16, 3, [2, 3, 4])],
)
def test_a_validation_is_after_the_step_in_which_an_epoch_ends(every, batch, n_rows, expected):
    settings = Settings(epochs=10, evaluate_every=every, batch=batch)
    due = [step for step in range(1, 9) if epochs.is_due(settings, step, n_rows)]
    assert due[: len(expected)] == expected


def test_validations_that_would_never_come_are_refused():
    with pytest.raises(InputError, match="evaluate_every=5: expected at most epochs=2, as it counts epochs"):
        Settings(epochs=2, evaluate_every=5)


@pytest.mark.parametrize(
    ("slots", "steps", "expected"),
    [(2, [3, 3, 3, 3], 6), (2, [3, 5, 4], 8), (3, [3, 5, 4], 5), (1, [3, 5], 8), (2, [1, 4, 1, 1], 5)],
)
def test_the_steps_of_a_run_are_known_before(slots, steps, expected):
    assert together(Slots([HERE] * slots, list(range(len(steps)))), steps) == expected


@pytest.fixture(scope="module")
def lockstep(train):
    return train(GROUPS, **EPOCHS)


def steps_of(library):
    return [dict(info.training)["steps"] for info in library.infos]


@pytest.fixture
def n_rows(monkeypatch):
    """{expert: its rows}, once a run has begun."""
    found, placed = {}, Inputs.placed

    def watched(self, slots):
        found.update(self.rows.n_rows)
        return placed(self, slots)

    monkeypatch.setattr(Inputs, "placed", watched)
    return found


def test_experts_of_many_rows_take_more_steps(train, n_rows, tmp_path):
    library = train(GROUPS, workdir=tmp_path, **EPOCHS)
    expected = [-(-n_rows[name] // 2) for name in GROUPS]
    assert steps_of(library) == expected and len(set(expected)) == 3
    lines = metrics.read(tmp_path / "metrics.jsonl")
    for name, steps in zip(GROUPS, expected, strict=True):
        assert [line["step"] for line in lines if name in line["loss"]] == list(range(1, steps + 1))


@pytest.mark.parametrize("name", GROUPS)
def test_each_is_trained_as_alone(train, lockstep, name):
    assert_close(lockstep[name], train({name: GROUPS[name]}, **EPOCHS))
    (steps,) = steps_of(lockstep[name])
    assert_close(lockstep[name], train({name: GROUPS[name]}, steps=steps))  # the schedule goes over its own steps


def test_waves_equal_all_at_once(train, lockstep):
    found = train(GROUPS, slots=2, **EPOCHS)
    assert_close(found, lockstep)
    assert found.infos == lockstep.infos


def test_on_a_mesh(train, lockstep, word_model):
    mesh = make_mesh(expert=2, fsdp=2, tensor=2)
    assert_close(train(GROUPS, model=on(mesh, word_model), slots=2, **EPOCHS), lockstep, atol=1e-5)


def test_killed_and_resumed_it_is_the_same_bit_for_bit(train, killed_before, tmp_path):
    settings = {"slots": 2, "save_every": 2, "evaluate_every": 1, "patience": 3, **EPOCHS}
    whole = train(GROUPS, workdir=tmp_path / "whole", **settings)
    for step in (5, 8):  # while the first two and while the last two are in the slots
        killed_before(step, lambda: train(GROUPS, workdir=tmp_path / "killed", **settings))
    resumed = train(GROUPS, workdir=tmp_path / "killed", **settings)
    assert equal(whole, resumed) and whole.infos == resumed.infos
    lines, expected = (metrics.read(tmp_path / name / "metrics.jsonl") for name in ("killed", "whole"))
    assert sorted(lines, key=str) == sorted(expected, key=str)


def test_validated_at_the_end_of_every_epoch(train, n_rows, tmp_path):
    library = train(GROUPS, workdir=tmp_path, epochs=2, evaluate_every=1, patience=3)
    lines = [line for line in metrics.read(tmp_path / "metrics.jsonl") if line["kind"] == "validation"]
    for name in GROUPS:
        ends = [-(-epoch * n_rows[name] // 2) for epoch in (1, 2)]
        assert [line["step"] for line in lines if name in line["loss"]] == ends
        assert steps_of(library[name]) == ends[-1:]


def test_the_bar_ends_at_its_total(train, monkeypatch):
    totals, reached = [], []
    begun, steps = run.Run.total.fget, run.Run._step

    def watched(self, batch):
        found = steps(self, batch)
        totals.append(begun(self))
        reached.append(self.number)
        return found

    monkeypatch.setattr(run.Run, "_step", watched)
    train(GROUPS, slots=2, **EPOCHS)
    assert set(totals) == {reached[-1]}


def test_skills_and_whole_models_too(word_model, word_tasks, small, n_rows):
    """One member learns all tasks: its rows are those of all."""
    settings, own = {**small, "batch": 16, "epochs": 1}, word_tasks.select(["copy", "sort"])
    library, _ = train_poly(word_model, own, skills=2, progress=False, **settings)
    assert steps_of(library) == [-(-n_rows["poly"] // 16)] * 2
    found, plain = (
        train_full(word_model, own, progress=False, **(settings | {"epochs": epochs, "steps": steps}))
        for epochs, steps in ((1, 1000), (0, -(-n_rows["poly"] // 16)))
    )
    assert found.fingerprint == plain.fingerprint
