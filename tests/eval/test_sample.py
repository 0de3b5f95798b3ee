"""The choice of a task's examples: by seed and index alone, from settings that are checked."""

import pytest
from ml_collections import ConfigDict

from modjax.errors import InputError
from modjax.eval import Sample
from modjax.eval.sample import prepared


def test_examples_are_chosen_by_seed_and_index(tasks):
    assert Sample(4).choose(tasks["a"]) == Sample(4).choose(tasks["a"])
    assert Sample(4).choose(tasks["a"]) != Sample(4, seed=1).choose(tasks["a"])
    assert Sample(0).choose(tasks["a"]) == tasks["a"].split("test")
    with pytest.raises(InputError, match="'a'.*'validation'"):
        Sample(4, "validation").choose(tasks["a"])


def test_every_example_comes_with_its_task_and_its_tokens(model, tasks):
    found = prepared(model, tasks, Sample(2, "train", length=32))
    assert [one.task.name for one in found] == [name for name in tasks for _ in range(2)]
    for one in found:
        assert one.example in one.task.split("train")
        assert model.tokenizer.decode(one.encoded.tokens[: one.encoded.n_prompt]).startswith(one.example.source)


def test_a_sample_is_taken_from_the_settings_of_a_config():
    config = ConfigDict({"examples": 3, "max_new_tokens": 8, "system": ""})
    assert Sample.of(config) == Sample(3, system="")
    assert Sample.of({}) == Sample()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"examples": -1}, "examples=-1: expected a whole number, at least 0"),
        ({"length": 0}, "length=0: expected a whole number, at least 1"),
        ({"split": "dev"}, "split='dev': expected one of train, validation, test"),
        ({"examples": None}, "examples=None: expected a whole number"),
        ({"seed": 0.5}, "seed=0.5: expected a whole number"),
        ({"system": 5}, "system=5: expected a string"),
        ({"too_long": "cut"}, "too_long='cut': expected one of error, truncate"),
    ],
)
def test_settings_that_are_not_possible_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Sample(**settings)
