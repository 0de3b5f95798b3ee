"""Tasks, and how examples are split."""

import pytest

from modjax.data.tasks import Example, Task, Tasks, assign_split
from modjax.errors import InputError


def task(name, **about):
    return Task(name, (Example("question", "answer", "train"), Example("other", "reply", "test")), **about)


def test_a_task_without_examples_is_refused():
    with pytest.raises(InputError, match="task 'empty' has no examples"):
        Task("empty", ())


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match=r"Example.split='dev': expected one of train, validation, test"):
        Task("t", (Example("question", "answer", "dev"),))


def test_two_tasks_of_one_name_are_refused():
    with pytest.raises(InputError, match="two tasks are named 'same'"):
        Tasks([task("same"), task("same")])


def test_tasks_keep_their_order_and_know_what_is_held_out():
    tasks = Tasks([task("b"), task("a", held_out=True, family="letters"), task("c")])
    assert list(tasks) == ["b", "a", "c"]
    assert list(tasks.training) == ["b", "c"]
    assert list(tasks.held_out) == ["a"]
    assert tasks.families == (None, "letters", None)


def test_select_goes_by_the_order_asked_for_and_names_what_is_missing():
    tasks = Tasks([task("a"), task("b")])
    assert list(tasks.select(["b", "a"])) == ["b", "a"]
    with pytest.raises(InputError, match="no task 'c'; the collection has a, b"):
        tasks.select(["a", "c"])


def test_a_split_is_the_examples_of_that_split():
    assert [example.source for example in task("t").split("test")] == ["other"]


def test_answers_are_the_references_or_else_the_target():
    assert Example("q", "one", "test").answers == ("one",)
    assert Example("q", "one", "test", ("one", "1")).answers == ("one", "1")


def test_the_split_by_index_is_the_one_of_the_flan_preparation():
    # u = RandomState(i).uniform() for i = 0..9: .549 .417 .436 .551 .967 .222 .893 .076 .873 .010
    first = [assign_split(index) for index in range(10)]
    assert first == ["train"] * 4 + ["test", "train", "validation", "train", "validation", "train"]
    share = [assign_split(index) for index in range(2000)]
    assert share.count("train") / 2000 == pytest.approx(0.8, abs=0.03)
    assert share.count("validation") / 2000 == pytest.approx(0.1, abs=0.02)
