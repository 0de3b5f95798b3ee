"""Facts about models on this machine and about known ones; nothing is downloaded."""

import dataclasses
import json

import jax
import pytest

from modjax.errors import InputError
from modjax.models import gguf, local, weights
from modjax.models.local import EMBEDDED, layers


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neo", "gpt_neox", "phi"])
def test_a_directory(tiny_json, tmp_path, family):
    (tmp_path / "config.json").write_text(json.dumps(tiny_json(family)))
    assert layers(str(tmp_path)) == 3


def test_the_embedded_model():
    assert layers(EMBEDDED) == 30


def test_a_model_in_the_cache(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"num_hidden_layers": 7}')
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert layers("org/name") == 7
    assert layers("org/another") is None


@pytest.mark.parametrize("config", ["{}", "[]", "{", '{"num_hidden_layers": "2"}', '{"num_hidden_layers": -1}'])
def test_a_config_that_does_not_say(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    assert layers(str(tmp_path)) is None


@pytest.mark.parametrize("name", ["", "none", "a b", "x/y/z", "none.gguf", "\0", "é" * 5000, "../..", "/", "~"])
def test_no_model(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert layers(name) is None


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("microsoft/phi-2", 2_779_683_840),
        ("smollm2-135m", 134_515_008),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("meta-llama/Llama-2-70b-hf", 68_976_648_192),
        ("meta-llama/Meta-Llama-3-70B", 70_553_706_496),
    ],
)
def test_known_models_have_the_sizes_of_those_they_are_named_after(model, parameters):
    assert sum(leaf.size for leaf in jax.tree.leaves(weights.abstract(local.config(model), "float32"))) == parameters


def test_what_is_known_of_the_embedded_model_is_what_its_file_says():
    assert dataclasses.asdict(local.config(EMBEDDED)) == dataclasses.asdict(gguf.config(gguf.embedded()))


def test_the_config_of_a_directory_and_of_its_file(tiny_json, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(tiny_json("qwen2")))
    assert local.config(str(tmp_path)) == local.config(str(tmp_path / "config.json"))
    assert (local.config(str(tmp_path)).family, local.config(str(tmp_path)).D) == ("qwen2", 32)


@pytest.mark.parametrize("name", ["none", "a b", "x/y/z", "é" * 5000, "/"])
def test_the_config_of_no_model(name):
    with pytest.raises(InputError, match="expected one of these, or the path of a config.json; known are .*phi-2"):
        local.config(name)


@pytest.mark.parametrize("name", ["none.json", "none.gguf", "\0.json", ""])
def test_the_config_of_a_missing_file(name):
    with pytest.raises(InputError, match="none|json|model"):
        local.config(name)
