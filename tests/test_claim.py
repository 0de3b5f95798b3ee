"""A folder's inputs: recorded once, compared after that."""

import json

import pytest

from modjax.claim import claim
from modjax.errors import InputError


def test_the_same_inputs_are_accepted_again(tmp_path):
    inputs = {"train": {"steps": 4, "sites": ("attn.q",)}, "shown": []}
    claim(tmp_path / "inputs.json", inputs)
    claim(tmp_path / "inputs.json", inputs)  # tuples are lists in the file
    assert json.loads((tmp_path / "inputs.json").read_text())["train"]["sites"] == ["attn.q"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"train": {"steps": 5}}, "inputs.train.steps = 4; found 5, expected the same or a new folder"),
        ({"train": {}}, "inputs.train.steps = 4; found None"),
        ({"train": {"steps": 4}, "seed": 0}, "inputs.seed = None; found 0"),
    ],
)
def test_other_inputs_are_named_and_change_nothing(tmp_path, inputs, words):
    path = tmp_path / "inputs.json"
    claim(path, {"train": {"steps": 4}})
    before = path.read_text()
    with pytest.raises(InputError, match=words):
        claim(path, inputs)
    assert path.read_text() == before
