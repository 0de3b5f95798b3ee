"""Commands that several processes run together: what they find, write and print equals what one process does alone."""

import errno
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from many import ROOT, ended, started

from modjax.cli import together
from modjax.errors import InputError, Stopped
from modjax.experts.library import Library

METHODS = {
    "base": {"library": ""},
    "arrow": {"router": {"name": "arrow", "top_k": 2}},
    "centroid": {"router": {"name": "centroid", "examples": 2}},
    "mu": {"adapt": {"method": "mu", "retrieve": "lora", "experts": 2}},
}
ADAPT = {"method": "lora", "examples": 3, "validation": 2, "retrieve": "none", "experts": 2}
PRIVATE = "--config.library=private/library"
COMMANDS = [
    ["train", "--workdir=private", "--config.train.evaluate_every=2", "--config.train.patience=2"],
    ["cluster", "--workdir=clusters", PRIVATE, "--nearest=private/library"],
    ["train", "--workdir=mbc", "--config.groups=clusters/clusters.json"],
    ["evaluate", "--workdir=scores", PRIVATE],
    ["leaderboard", "--workdir=board", PRIVATE],
    ["transfer", "--workdir=transfer", PRIVATE],
    ["route", "--workdir=arrow", PRIVATE],
    ["merge", "--workdir=merged", PRIVATE, "--config.method={'merge': {'name': 'ties'}}"],
    ["adapt", "--workdir=adapted", PRIVATE],
    ["generate", PRIVATE, "--prompt=what is red", "--prompt=what is the name"],
]
LIBRARIES = ("private/library", "mbc/library", "transfer/joint/library", "merged/library", "adapted/library")
TIMES = {"seconds", "facts", "stages", "bytes", "build", "cost"}  # keys of times and of memory


@pytest.fixture
def config(config_file, tmp_path):
    """The tiny config with what all the verbs need, on a mesh of four devices."""
    path = tmp_path / "job.py"
    board = {"libraries": {}, "models": {}, "train": (), "rows": {}, "analyse": ("arrow",), "shown": ("a",)}
    path.write_text(
        "import runpy\n"
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        f"    config = runpy.run_path({str(config_file)!r})['get_config']()\n"
        f"    config.leaderboard, config.adapt = {board!r}, {ADAPT!r}\n"
        f"    config.leaderboard.methods = ConfigDict({METHODS!r})\n"
        "    config.transfer = {'pairs': 3, 'bins': 2, 'seed': 0}\n"
        "    config.mesh = {'expert': 2, 'fsdp': 2, 'tensor': 1}\n"
        "    config.train.update(steps=3, dropout=0.0, learning_rate=1e-2)\n"
        "    return config\n"
    )
    return path


@pytest.fixture
def run(config, tmp_path):
    """run(n) has n processes run all commands in a folder of their own; gives the folder and what they printed."""

    def run(n):
        folder = tmp_path / str(n)
        folder.mkdir()
        commands = [[verb, f"--config={config}", *arguments] for verb, *arguments in COMMANDS]
        found = ended(started(n, commands, folder, devices=4 // n))
        for one in found:
            assert one.code == 0, one.err[-4000:]
        return folder, found

    return run


SPEAKING = """
import os, sys, warnings
from modjax.cli import together
from modjax.parallel import distributed
distributed.is_writer = lambda: sys.argv[1] == "first"
together.let_the_first_speak()
print("result")
os.write(1, b"of a library\\n")
warnings.warn("careful")
print("fault", file=sys.stderr)
"""


@pytest.mark.parametrize(("which", "out", "warned"), [("first", "result\n", True), ("other", "", False)])
def test_the_first_process_prints_and_warns_and_all_show_faults(which, out, warned):
    command = [sys.executable, "-c", SPEAKING, which]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == out
    assert "of a library\n" in done.stderr and "fault\n" in done.stderr and ("careful" in done.stderr) == warned


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), 75, "modjax: another process of this"),
        (OSError(errno.ENOSPC, "No space left on device"), 74, "modjax: No space left on device; when that is mended"),
        (InputError("tasks.jsonl: cannot be read"), 2, "modjax: tasks.jsonl: cannot be read"),
        (KeyError("odd"), 1, "Traceback"),
    ],
)
def test_one_of_several_processes_that_fails_ends_at_once(error, code, text, monkeypatch, capsys):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(together, "LINGER", 0)
    with pytest.raises(SystemExit) as exit, together.ending():
        raise error
    assert exit.value.code == code
    assert capsys.readouterr().err.startswith(text)


def test_when_all_have_stopped_they_end_in_order(monkeypatch):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    with pytest.raises(Stopped), together.ending():
        raise Stopped("by SIGTERM after step 3")


@pytest.mark.slow
def test_several_processes_find_write_and_print_what_one_does(run):
    alone, (expected,) = run(1)
    for n in (2, 4):
        folder, (first, *others) = run(n)
        assert [one.out for one in others] == [""] * (n - 1)
        assert not any("per second" in one.err for one in others)  # no progress
        assert _words(first.out) == _words(expected.out)
        assert _files(folder) == _files(alone)
        for path in _files(alone):
            if path.suffix == ".json" and path.name not in ("stages.json", "library.json", "micro.json"):
                differ = _alike(json.loads((folder / path).read_text()), json.loads((alone / path).read_text()))
                assert differ == [], path
        for path in LIBRARIES:
            libraries = (Library.load(one / path) for one in (folder, alone))
            for leaf, other in zip(*map(jax.tree.leaves, libraries), strict=True):
                np.testing.assert_allclose(leaf, other, atol=1e-5)


def _files(folder):
    """The files of results, without those whose names differ from run to run."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not {"checkpoints", "tensorboard"} & set(path.parts))


def _alike(found, expected, where=""):
    """The places at which two values differ by more than rounding, but for times, memory and digests of arrays."""
    if isinstance(expected, dict) and isinstance(found, dict) and set(found) == set(expected):
        pairs = [(found[key], expected[key], f"{where}.{key}") for key in expected if key not in TIMES]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(found, expected, strict=True))]
    else:
        same = found == (pytest.approx(expected, rel=1e-4, abs=1e-5) if isinstance(expected, float) else expected)
        digests = all(isinstance(one, str) and re.fullmatch(r"[0-9a-f]{16}", one) for one in (found, expected))
        return [] if same or digests else [f"{where}: {found}, {expected}"]
    return [one for pair in pairs for one in _alike(*pair)]


def _words(text):
    """What is printed but for numbers, some of which are times; the others are those of the files."""
    return re.sub(r"\d+(\.\d+)?", "#", text).split()
