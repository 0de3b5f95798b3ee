"""What bad input gets: one sentence that names the thing and what was expected, exit code 2, nothing overwritten."""

import io
import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from modjax.experts.library import Library


@pytest.fixture
def refused(modjax, config_file, tmp_path):
    """Runs a command that must be refused in words holding all of `expected`."""

    def run(verb, *arguments, expected, workdir="job"):
        before = _contents(tmp_path)
        code, _, err = modjax(verb, f"--config={config_file}", f"--workdir={tmp_path / workdir}", *arguments)
        assert code == 2, err
        message = err[err.index("modjax: ") :].strip()
        assert "\n" not in message and "Traceback" not in err
        for words in expected:
            assert words in message
        after = _contents(tmp_path)
        assert {path: after.get(path) for path in before} == before

    return run


def _contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def library(checkpoint):
    """Experts that fit the tiny checkpoint, of a known base."""
    rng = np.random.default_rng(0)
    return Library.from_arrays(
        {"attn.q": (rng.normal(size=(2, 2, 2, 16)), rng.normal(size=(2, 2, 2, 16)))}, names=["a", "b"]
    )


def test_unknown_verb(modjax):
    code, _, err = modjax("trian")
    assert code == 2
    assert err == "modjax: unknown verb 'trian'; did you mean 'train'?\n"


def test_missing_flag(modjax, config_file):
    code, _, err = modjax("train", f"--config={config_file}")
    assert code == 2
    assert "--workdir is missing; example: modjax train --config=" in err


def test_unknown_flag(refused):
    refused("cluster", "--swep=2:3", expected=["unknown flag --swep for cluster; did you mean '--sweep'?"])


def test_flag_of_another_verb(refused):
    refused(
        "train",
        "--sweep=2:3",
        expected=["unknown flag --sweep for train; expected one of --config, --workdir, --profile"],
    )


def test_unknown_config_key(refused):
    refused("train", "--config.train.stepz=3", expected=["--config.train.stepz", "did you mean 'train.steps'?"])


def test_config_key_without_its_node(refused):
    refused("train", "--config.learning_rate=3", expected=["did you mean 'train.learning_rate'?"])


def test_config_key_without_a_config(modjax):
    code, _, err = modjax("library", "--path=none", "--config.train.steps=3")
    assert code == 2
    assert err == "modjax: --config.train.steps sets a key of a config; expected --config=FILE, too\n"


def test_argument_without_dashes(refused):
    refused("train", "quick", expected=["unexpected argument 'quick'", "--name=value"])


def test_variants_of_a_config_that_takes_none(modjax, config_file):
    code, _, err = modjax("train", f"--config={config_file}:quick", "--workdir=none")
    assert code == 2
    assert err == f"modjax: {config_file}: takes no variants; found 'quick'\n"


def test_config_file_without_a_config(modjax, tmp_path):
    (tmp_path / "empty.py").touch()
    code, _, err = modjax("train", f"--config={tmp_path / 'empty.py'}", "--workdir=none")
    assert code == 2
    assert "empty.py: defines no get_config" in err


def test_wrong_type_of_config_value(refused):
    refused("train", "--config.train.steps=many", expected=["steps", "many"])


def test_missing_config_file(modjax, tmp_path):
    code, _, err = modjax("train", f"--config={tmp_path / 'none.py'}", f"--workdir={tmp_path / 'job'}")
    assert code == 2
    assert "none.py" in err and "Traceback" not in err


def test_impossible_setting(refused):
    refused("train", "--config.train.rank=0", expected=["rank=0", "at least 1"])


def test_missing_tasks(refused, tmp_path):
    refused("train", f"--config.tasks={tmp_path / 'none.jsonl'}", expected=["none.jsonl"])


def test_missing_model(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("train", f"--config.model={tmp_path / 'none'}", expected=["none"])


def test_missing_library(refused, tmp_path):
    refused("evaluate", f"--config.library={tmp_path / 'none'}", expected=["none", "library.json"])


def test_unknown_router(refused, library, tmp_path):
    library.save(tmp_path / "library")
    refused(
        "evaluate",
        f"--config.library={tmp_path / 'library'}",
        "--config.method.router.name=bow",
        expected=["bow", "arrow"],
    )


def test_library_of_another_shape(refused, tmp_path):
    wide = Library.from_arrays({"attn.q": (np.zeros((2, 1, 2, 32)), np.zeros((2, 1, 2, 32)))})
    wide.save(tmp_path / "library")
    refused("evaluate", f"--config.library={tmp_path / 'library'}", expected=["attn.q", "32", "16"])


def test_library_of_another_base(refused, tmp_path):
    other = Library.from_arrays(
        {"attn.q": (np.zeros((2, 1, 2, 16)), np.zeros((2, 1, 2, 16)))}, base="other", fingerprint="0123456789abcdef"
    )
    other.save(tmp_path / "library")
    refused("evaluate", f"--config.library={tmp_path / 'library'}", expected=["other", "0123456789abcdef"])


def test_truncated_library(refused, library, tmp_path):
    library.save(tmp_path / "library")
    path = tmp_path / "library" / "a" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    refused("evaluate", f"--config.library={tmp_path / 'library'}", expected=["adapter_model.safetensors", "sha256"])


def test_empty_task(refused, tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text("")
    refused("train", f"--config.tasks={path}", expected=["empty.jsonl"])


def test_task_without_training_examples(refused, tmp_path):
    path = tmp_path / "test_only.jsonl"
    path.write_text(json.dumps({"task": "a", "source": "what", "target": "yes", "split": "test"}) + "\n")
    refused("train", f"--config.tasks={path}", expected=["'a'", "'train'", "at least one"])


def test_example_longer_than_the_rows(refused):
    refused("train", "--config.train.length=6", expected=["'a'", "train example 0", "at most 6"])


def test_rows_longer_than_the_context(refused):
    refused("train", "--config.train.length=100", expected=["length=100", "64"])


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """A copy of the checkpoint to be damaged."""
    return shutil.copytree(checkpoint, tmp_path / "damaged")


def test_nan_in_a_weight_file(refused, damaged):
    path = damaged / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = np.nan
    safetensors.numpy.save_file(tensors, path, {"format": "pt"})
    refused("train", f"--config.model={damaged}", expected=["model.safetensors", "layers.1.mlp.up_proj", "NaN"])


def test_truncated_weight_file(refused, damaged):
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused("train", f"--config.model={damaged}", expected=["model.safetensors", "truncated"])


def test_workdir_of_another_config(refused, modjax, config_file, tmp_path):
    assert modjax("train", f"--config={config_file}", f"--workdir={tmp_path / 'job'}")[0] == 0
    refused("train", "--config.train.steps=5", expected=["config.json", "config.train.steps", "4", "5"])


def test_workdir_that_is_no_job(refused, tmp_path):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "thesis.txt").write_text("mine")
    refused("train", expected=["config.json", "job"])


def test_no_prompts(refused, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    refused("generate", expected=["--prompt"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no text"),
        (b" \n\n", "has no text"),
        ("what is red".encode("utf-16"), "is text in UTF-16"),
        (b"what\nis\ngr\xfcn", "line 3: byte 10 is 0xFC, which is not UTF-8"),
    ],
)
def test_prompts_that_are_no_text(refused, monkeypatch, tmp_path, content, says):
    (tmp_path / "prompts.txt").write_bytes(content)
    refused("generate", f"--prompts={tmp_path / 'prompts.txt'}", expected=["prompts.txt", says])
    if content.strip():
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        refused("generate", expected=["standard input", says])
