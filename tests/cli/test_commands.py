"""Every `modjax` command that the repository names: its verb, flags, config file, variants and keys exist."""

import ast
import importlib
import pathlib
import re
import shlex
import sys

import pytest

from modjax.cli import command
from modjax.cli.main import VERBS

ROOT = pathlib.Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "Makefile")),
    *sorted((ROOT / "launch").iterdir()),
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LAUNCHED = r"(?:local|slurm)\.sh(?: --dry-run)?|(?:tpu_pod|gke)\.sh(?: --dry-run)? (?:all|run|xpk)"
RUN = re.compile(rf"(?:(?<!-C )modjax|{LAUNCHED}) +([a-z]+) +((?:[a-z]+ +)?--[^`\n]+)")


def named(text):
    """(verb, arguments) of each command in a text; a line that ends in a backslash goes on in the next."""
    joined = re.sub(r"\\\n[#\s]*", " ", text)
    for verb, rest in RUN.findall(joined):
        if "=..." in rest:
            continue
        words = shlex.split(rest, comments=True)
        end = next((i for i, word in enumerate(words) if i and not word.startswith("--")), len(words))  # such as > FILE
        yield verb, words[:end]


def text_of(path):
    return ast.get_docstring(ast.parse(path.read_text())) or "" if path.suffix == ".py" else path.read_text()


COMMANDS = [(path.name, *one) for path in FILES for one in named(text_of(path))]


@pytest.fixture
def parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(verb, arguments):
        return command.parse(verb, importlib.import_module(f"modjax.cli.{verb}"), arguments)

    return run


@pytest.mark.parametrize(("file", "verb", "arguments"), COMMANDS)
def test_a_command_that_is_named_can_be_read(file, verb, arguments, parse):
    assert verb in VERBS
    parse(verb, arguments)


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_can_be_read(verb, parse):
    ((own, arguments),) = named(importlib.import_module(f"modjax.cli.{verb}").EXAMPLE)
    assert own == verb
    parse(verb, arguments)


def test_commands_are_found_where_they_stand():
    configs = {path.name for path in FILES if path.parent.name == "configs"} - {"common.py"}
    scripts = {"local.sh", "slurm.sh", "gke.sh", "tpu_pod.sh"}
    documents = {"README.md", "Makefile", "benchmarks.md", "data.md", "experiments.md", "failures.md", "plan.md"}
    assert {file for file, *_ in COMMANDS} == documents | scripts | configs


def test_a_command_is_read_over_lines_and_up_to_its_end():
    text = "#  modjax chat --config=a.py \\\n#    --workdir=b   # talk\n`modjax train --config=c.py:d` or modjax route"
    assert list(named(text)) == [("chat", ["--config=a.py", "--workdir=b"]), ("train", ["--config=c.py:d"])]
