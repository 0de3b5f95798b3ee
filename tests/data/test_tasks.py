"""Tasks, and how examples are split."""

import dataclasses

import pytest

from modjax.data.example import Example
from modjax.data.splits import SPLITS, assign_split, by_index
from modjax.data.tasks import Task, Tasks, checked_tasks
from modjax.errors import InputError


def task(name, **about):
    return Task(name, (Example("question", "answer", "train"), Example("other", "reply", "test")), **about)


def test_a_task_without_examples_is_refused():
    with pytest.raises(InputError, match="task 'empty' has no examples"):
        Task("empty", ())


def test_an_unknown_split_is_refused():
    with pytest.raises(InputError, match=r"split='dev': expected one of train, validation, test"):
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
    assert [SPLITS[code] for code in by_index(5000)] == [assign_split(index) for index in range(5000)]
    assert by_index(0).tolist() == [] and by_index(1).tolist() == [0]
    share = [assign_split(index) for index in range(2000)]
    assert share.count("train") / 2000 == pytest.approx(0.8, abs=0.03)
    assert share.count("validation") / 2000 == pytest.approx(0.1, abs=0.02)


def test_a_fingerprint_is_that_of_all_that_is_known_of_a_task():
    one = task("t")
    other = [
        task("u"),
        task("t", held_out=True),
        task("t", family="letters"),
        task("t", definition="Answer."),
        Task("t", one.examples[::-1]),
        Task("t", (*one.examples, Example("third", "answer", "train"))),
        *(
            Task("t", (dataclasses.replace(one.examples[0], **{field: value}), one.examples[1]))
            for field, value in (("source", "x"), ("target", "x"), ("split", "test"), ("references", ("x",)))
        ),
    ]
    assert len({each.fingerprint for each in (one, *other)}) == 1 + len(other)
    assert task("t").fingerprint == one.fingerprint and len(one.fingerprint) == 16
    assert Tasks([one, other[0]]).fingerprints == {"t": one.fingerprint, "u": other[0].fingerprint}


EXAMPLE = Example("question", "answer", "train")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Example(None, "a", "train"), "source=None: expected a string"),
        (lambda: Example("q", 3, "train"), "target=3"),
        (lambda: Example("q\ud800", "a", "train"), "source=.*lone surrogates"),
        (lambda: Example("q", "a", "train", "yes"), "references='yes': expected a list of strings"),
        (lambda: Example("q", "a", "train", (1,)), "an item of references=1"),
        (lambda: Task(3, (EXAMPLE,)), "name=3"),
        (lambda: Task("t", None), "examples=None: expected a list"),
        (lambda: Task("t", EXAMPLE), "examples=Example.*: expected a list"),
        (lambda: Task("t", ("question",)), "an item of examples='question': expected an Example"),
        (lambda: Task("t", (EXAMPLE,), family=4), "family=4"),
        (lambda: Task("t", (EXAMPLE,), held_out="no"), "held_out='no': expected True or False"),
        (lambda: Task("t", (EXAMPLE,), definition=None), "definition=None"),
        (lambda: Tasks(None), "tasks=None: expected a list of tasks"),
        (lambda: Tasks({"t": task("t")}), "tasks=.*: expected a list of tasks"),
        (lambda: Tasks([EXAMPLE]), "an item of tasks=Example.*: expected a Task"),
        (lambda: Tasks([task("t")]).select("t"), "names='t': expected a list of names"),
        (lambda: Tasks([task("t")]).select([["t"]]), "names=.*: expected a string"),
        (lambda: checked_tasks([task("t")]), "tasks=.*: expected Tasks, from modjax.data.load"),
    ],
)
def test_wrong_types_are_named_where_they_are_made(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_lists_become_tuples():
    made = Task("t", [Example("q", "a", "train", ["a", "b"])])
    assert made.examples[0].references == ("a", "b") and hash(made)
