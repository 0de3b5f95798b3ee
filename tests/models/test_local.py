"""The number of layers of models on this machine; nothing is downloaded."""

import json

import pytest

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
