"""The documents: their Python runs, and the files, functions and links that they name exist."""

import inspect
import json
import pathlib
import pkgutil
import re

import jax
import pytest

import modjax
from modjax.models import gguf, gguf_tokenizer
from modjax.models.config import ModelConfig
from modjax.models.decoder import Decoder

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
METHODS = (ROOT / "docs" / "methods.md").read_text()
CALLS = sorted(set(re.findall(r"(?:\||,) `([\w.]+)(?:\((.*?)\))?`", METHODS)))


@pytest.fixture
def tiny_smollm2(monkeypatch):
    """`modjax.load` gives a tiny random llama with the tokenizer and the context of SmolLM2."""
    words = gguf_tokenizer.read(gguf.embedded())
    config = ModelConfig("llama", V=len(words), D=16, N=2, K=1, H=8, F=16, L=2, context=2048, rope_dim=8)
    model = modjax.Model("tiny", Decoder.init(config, jax.random.key(0)), words)
    monkeypatch.setattr(modjax, "load", lambda name: model)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tiny_smollm2, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    assert len(modjax.Library.load("library")) == 2
    assert pathlib.Path("merged", "model.safetensors").is_file() and pathlib.Path("report", "index.html").is_file()
    table = capsys.readouterr().out
    assert all(line in table for line in names["lines"]) and "failed" not in table


def test_every_failure_has_a_test_that_exists():
    table = (ROOT / "docs" / "failures.md").read_text().partition("|---")[2].partition("## ")[0]
    rows = [line.rpartition(" | ")[2] for line in table.split("\n")[1:] if line.startswith("|")]
    named = [re.findall(r"test_\w+", row) for row in rows]
    assert len(rows) > 10 and all(tests or row == "the same |" for tests, row in zip(named, rows, strict=True))
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert [test for tests in named for test in tests if f"def {test}(" not in code] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()) if not link.startswith("https:")]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_tree_of_the_readme_has_every_package():
    tree = (ROOT / "README.md").read_text().partition("    modjax/\n")[2].partition("    configs/")[0]
    packages = {path.parent.name for path in (ROOT / "modjax").glob("*/__init__.py")}
    assert set(re.findall(r"^      (\w+)/ ", tree, re.MULTILINE)) == packages


def test_the_files_of_the_methods_exist():
    files = re.findall(r"\| ([\w/]+\.py) \|", METHODS)
    assert len(files) > 50 and [file for file in files if not (ROOT / "modjax" / file).is_file()] == []


def test_the_losses_of_the_methods_are_those_of_the_leaderboard():
    rows = re.findall(r"\| (\w+) \| (\S+) / (\S+) \|$", METHODS, re.MULTILINE)
    kept = json.loads((ROOT / "benchmarks" / "results" / "leaderboard_cpu.json").read_text())["methods"]
    losses = {name: tuple(_loss(own, part) for part in ("in_distribution", "held_out")) for name, own in kept.items()}
    assert len(losses) > 50 and {line: tuple(shown) for line, *shown in rows} == losses


def _loss(scores, part):
    return f"{scores[part]['loss']:.2f}" if part in scores else "–"


@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=lambda value: value)
def test_the_functions_of_the_methods_exist_with_their_arguments(name, arguments):
    module, _, function = f"modjax.{name}".rpartition(".")
    known = inspect.signature(getattr(pkgutil.resolve_name(module), function)).parameters
    asked = re.findall(r"(\w+)=", arguments)
    assert set(asked) <= set(known) or any(one.kind is one.VAR_KEYWORD for one in known.values())
