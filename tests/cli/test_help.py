"""The help of modjax and of each verb."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from modjax.cli.comments import comments
from modjax.cli.main import VERBS

ROOT = pathlib.Path(__file__).parents[2]


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["help"], []])
def test_help_lists_the_verbs(modjax, asked):
    code, out, _ = modjax(*asked)
    assert code == 0
    assert all(f"  {verb} " in out for verb in VERBS)


def test_the_list_of_verbs_comes_without_jax():
    code = "import sys; sys.argv = ['modjax']; from modjax.cli.main import main; main(); print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.startswith("usage: modjax VERB") and out.endswith("False\n")


def test_python_m_modjax_is_modjax():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "modjax", "trian"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr == "modjax: unknown verb 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_says_what_it_does_and_gives_an_example(modjax, verb):
    code, out, _ = modjax(verb, "--help")
    assert code == 0
    assert out.startswith(f"modjax {verb}: ")
    assert "\nflags:\n" in out and re.search(rf"\nexample:\n  modjax {verb} ([a-z]+ )?--", out)
    assert max(map(len, out.splitlines())) <= 120


def test_flags_are_those_of_the_verb_with_their_defaults(modjax):
    _, out, _ = modjax("convert", "--help")
    assert "--from PEFT or mttl folders or files, libraries, one model; may be repeated (required)" in lines(out)
    assert "--config" not in out and "--sweep" not in out
    _, out, _ = modjax("demo", "--help")
    assert "--report the folder that index.html goes to (default: report)" in lines(out)


def test_keys_are_those_of_the_example_with_defaults_and_comments(modjax, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no configs/ lies
    _, out, _ = modjax("train", "--help")
    assert f"config keys of {ROOT / 'configs' / 'private.py'}" in out
    assert "train.batch = 16" in out and "mesh.fsdp = 1" in out
    assert "generate.temperature = 0.0 0: greedy" in lines(out)


def test_keys_are_those_of_the_config_that_is_given(modjax):
    _, out, _ = modjax("train", f"--config={ROOT / 'configs' / 'full.py'}:quick,batch=3", "--help")
    assert "train.batch = 3 " in out and "train.steps = 16 " in out


def test_a_config_that_cannot_be_read_is_an_error_in_help_too(modjax):
    code, out, err = modjax("train", "--config=none.py", "--help")
    assert (code, out, err) == (2, "", "modjax: none.py: no such config file\n")


def test_comments_of_a_config_and_of_what_it_imports(tmp_path):
    (tmp_path / "shared.py").write_text(
        "class Settings:\n    steps: int = 3  # of training\n"
        "config = ConfigDict({'model': 'a',  # the base\n 'router': {'name': 'b',  # of routing\n 'top_k': 1}})\n"
    )
    (tmp_path / "job.py").write_text(
        "from shared import base\nconfig.train.rank = 2  # of each expert\nconfig.a = {'x': 1, 'y': 2}  # two\n"
        "config.model = 'c'  # another base\n"
    )
    assert comments(tmp_path / "job.py") == {
        "steps": "of training",
        "model": "another base",
        "router.name": "of routing",
        "train.rank": "of each expert",
    }
