"""Examples that stay in their files: read when asked for, the same as examples in memory, refused when changed."""

import dataclasses
import gc
import json

import pytest
from tiny import model, tasks  # noqa: F401, fixtures

from modjax import data
from modjax.data import sources
from modjax.data.example import Example
from modjax.data.lazy import FileExamples
from modjax.data.tasks import Task
from modjax.errors import InputError
from modjax.eval.sample import Sample, prepared
from modjax.train.examples import member_rows
from modjax.train.recipe import Recipe
from modjax.train.settings import Settings


def alive():
    gc.collect()
    return sum(type(one) is Example for one in gc.get_objects())


@pytest.fixture
def folder(tasks, tmp_path):  # noqa: F811
    sources.write(tasks, tmp_path / "folder")
    return tmp_path / "folder"


@pytest.fixture
def table(tasks, offline, tmp_path):  # noqa: F811
    """The settings of a table of the same tasks."""
    rows = [
        {"source": one.source, "target": one.target, "split": one.split, "task": task.name}
        for task in tasks.values()
        for one in task
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(rows))
    return {"files": str(tmp_path / "tasks.json")}


def test_no_example_is_in_memory_before_it_is_asked_for(folder, table):
    before = alive()
    for source in (folder, table):
        found = data.load(source)
        assert all(task.fingerprint and len(task) == 20 and task.sizes["test"] == 10 for task in found.values())
        assert alive() == before
        own = found["a"].split("train")
        assert alive() == before + len(own) == before + 10
        del own


@pytest.mark.parametrize("form", ["folder", "table"])
def test_lazy_tasks_are_trained_on_and_scored_as_tasks_in_memory(form, request, model, tasks):  # noqa: F811
    lazy = data.load(request.getfixturevalue(form))
    assert list(lazy) == list(tasks)
    assert {name: tuple(task) for name, task in lazy.items()} == {name: tuple(task) for name, task in tasks.items()}
    settings, groups = Settings(length=32, steps=1), {"one": ("a", "c"), "two": ("b",)}
    rows = [member_rows(model, of, groups, Recipe, settings, "train") for of in (tasks, lazy)]
    for name in groups:
        for one, other in zip(*(found.own[name] for found in rows), strict=True):
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()
    samples = [prepared(model, of, Sample(examples=3, length=32)) for of in (tasks, lazy)]
    for one, other in zip(*samples, strict=True):
        assert one.example == other.example and one.encoded.tokens.tobytes() == other.encoded.tokens.tobytes()


def test_tasks_in_files_have_the_fingerprints_of_those_in_memory(folder, tasks):  # noqa: F811
    lazy = data.load(folder)
    for name, task in tasks.items():
        assert dataclasses.replace(lazy[name], held_out=task.held_out, family=task.family) == task
    assert lazy.fingerprints == tasks.fingerprints


def test_a_file_that_changes_after_it_was_loaded_is_refused(folder):
    task = data.load(folder)["a"]
    path = task.examples.path
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match="has changed since its tasks were loaded; expected the same"):
        task.split("train")
    path.unlink()
    with pytest.raises(InputError, match="cannot be read .No such file"):
        list(task)


def test_examples_of_a_file_are_a_sequence(tmp_path):
    (tmp_path / "x").write_text("a b c d")

    def parse(path):
        return (Example(one, one, "train" if one < "c" else "test") for one in path.read_text().split())

    lazy = FileExamples(tmp_path / "x", parse)
    assert [one.source for one in lazy] == ["a", "b", "c", "d"] == [lazy[i].source for i in range(len(lazy))]
    assert lazy[-1].source == "d" and [one.source for one in lazy[1:3]] == ["b", "c"]
    assert Task("t", lazy) == Task("t", tuple(lazy)) != Task("t", tuple(lazy)[:3])
    assert hash(Task("t", lazy)) == hash(Task("t", tuple(lazy)))
    assert [one.source for one in Task("t", lazy).split("test")] == ["c", "d"]
