"""New tasks cut to a few examples."""

import dataclasses

import pytest

from modjax.adapt import few
from modjax.data.tasks import Tasks
from modjax.errors import InputError


def test_the_first_examples_are_kept_and_nothing_is_held_out(word_tasks):
    held_out = Tasks(dataclasses.replace(task, held_out=True) for task in word_tasks.values())
    found = few(held_out, examples=3, validation=2)
    assert list(found) == list(found.training) == list(word_tasks)
    assert found["copy"].split("train") == word_tasks["copy"].split("train")[:3]
    assert found["copy"].split("validation") == word_tasks["copy"].split("validation")[:2]


def test_all_examples_by_default(word_tasks):
    assert few(word_tasks)["sort"].split("train") == word_tasks["sort"].split("train")


def test_what_cannot_be_learned_from_is_named(word_tasks):
    judged = dataclasses.replace(word_tasks["copy"], examples=word_tasks["copy"].split("validation"))
    with pytest.raises(InputError, match="task 'copy' has no examples in split 'train'"):
        few(Tasks([judged]))
    with pytest.raises(InputError, match="no new tasks"):
        few(Tasks([]))
    with pytest.raises(InputError, match="examples=-1"):
        few(word_tasks, examples=-1)
