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
        ({"train": {"steps": 4, "sites": ["q", "v"]}}, r"inputs.train.sites\[1\] = None; found 'v'"),
        ({"train": {"steps": 4, "sites": ["k"]}}, r"inputs.train.sites\[0\] = 'q'; found 'k'"),
        ({"train": {"steps": "4" * 999}}, r"inputs.train.steps = 4; found '4{76}\.\.\., expected"),
    ],
)
def test_other_inputs_are_named_and_change_nothing(tmp_path, inputs, words):
    path = tmp_path / "inputs.json"
    claim(path, {"train": {"steps": 4, "sites": ["q"]} if "sites" in inputs["train"] else {"steps": 4}})
    before = path.read_text()
    with pytest.raises(InputError, match=words):
        claim(path, inputs)
    assert path.read_text() == before


def test_results_of_unknown_inputs_are_refused(tmp_path):
    kept = tmp_path / "library"
    claim(tmp_path / "1" / "inputs.json", {}, [kept])
    kept.mkdir()
    with pytest.raises(InputError, match="inputs.json: is missing, so it is not known what .*library was made of"):
        claim(tmp_path / "2" / "inputs.json", {}, [kept])
    claim(tmp_path / "1" / "inputs.json", {}, [kept])
    assert not (tmp_path / "2").exists()


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/inputs.json: cannot be written"):
        claim(tmp_path / "file" / "inputs.json", {})
