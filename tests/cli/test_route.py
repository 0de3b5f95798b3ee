"""`modjax route`: a router is built once, saved, analysed, and used by the other verbs."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from modjax.experts.library import Library
from modjax.routing import arrow, load_router

SINGULAR = [f"--config.method.router.{one}" for one in ("top_k=2", "length=singular", "input_norm=unit")]


@pytest.fixture
def run(modjax, config_file, library, tmp_path):
    """run(*arguments): (exit code, stdout, stderr) of making a router in WORKDIR."""

    def run(*arguments, verb="route", workdir="route"):
        flags = [f"--config={config_file}", f"--config.library={library}", f"--workdir={tmp_path / workdir}"]
        return modjax(verb, *flags, *([f"--report={tmp_path / 'report'}"] if verb == "route" else []), *arguments)

    return run


def test_a_router_is_saved_analysed_and_not_built_again(run, library, tmp_path):
    code, out, err = run(*SINGULAR)
    assert code == 0, err
    path = tmp_path / "route" / "router.safetensors"
    expected = arrow(Library.load(library), top_k=2, length="singular", input_norm="unit")
    np.testing.assert_array_equal(load_router(path).prototypes["attn.q"], expected.prototypes["attn.q"])
    assert load_router(path).input_norm == "unit" and load_router(path).top_k == 2
    analysis = json.loads((tmp_path / "route" / "routing.json").read_text())["analysis"]
    assert f"prompts that go to the oracle's expert: {100 * analysis['accuracy']:.1f} %, chance 33.3 %" in out
    assert [line.split()[0] for line in out.splitlines()[-6:-2]] == ["site", "all", "attn.q", "mlp.down"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert '<section id="analysis">' in page and '<section id="routing">' in page
    before = path.stat().st_mtime_ns
    code, again, _ = run(*SINGULAR)
    assert code == 0 and again.splitlines()[-6:] == out.splitlines()[-6:] and path.stat().st_mtime_ns == before


def test_other_verbs_use_a_saved_router(run, tmp_path):
    options = [f"--config.method.router.{one}" for one in ("name=phatgoose", "steps=4", "length=32")]
    code, _, err = run(*options)
    assert code == 0, err
    assert (tmp_path / "route" / "router" / "metrics.jsonl").exists()
    saved = f"--config.method.router.name={tmp_path / 'route' / 'router.safetensors'}"
    scores = []
    for name, arguments in (("built", options), ("saved", (saved,))):
        code, _, err = run(*arguments, verb="evaluate", workdir=name)
        assert code == 0, err
        scores.append(json.loads((tmp_path / name / "scores.json").read_text())["tasks"])
    assert scores[0] == scores[1]
    code, _, err = run(saved, "--config.method.router.top_k=1", verb="evaluate", workdir="odd")
    assert code == 2 and "a saved router has its own settings; expected no top_k" in err


def test_the_readmes_router_is_built_by_name_and_read_from_its_file(run, config_file, library, monkeypatch, tmp_path):
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "class NearestA" in block)
    (tmp_path / "my_module.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    name = re.search(r"--config\.method\.router\.name=(my_module:\w+)", readme)[1]
    code, out, err = run(f"--config.method.router.name={name}", "--config.method.router.temperature=0.2")
    assert code == 0, err
    saved = tmp_path / "route" / "router.safetensors"
    assert f"{saved}: a NearestA router of 3 experts" in out
    assert load_router(saved).temperature == 0.2
    for path, code, words in (
        (saved, 2, "router 'my_module.NearestA'; expected .* Import my_module first, or name it my_module:"),
        (f"my_module:{saved}", 0, ""),
    ):
        flags = [f"--config={config_file}", f"--config.library={library}", f"--workdir={tmp_path / f'scores{code}'}"]
        command = [
            pathlib.Path(sys.executable).with_name("modjax"),
            "evaluate",
            *flags,
            f"--config.method.router.name={path}",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code and re.search(words, done.stderr), done.stderr


@pytest.mark.parametrize(
    "name, words",
    [
        ("nearest", "unknown router 'nearest'; expected one of .*arrow"),
        ("no_such_module:nearest", "module 'no_such_module' of a router: No module named"),
        ("json:nearest", "json has no function 'nearest'; expected module:function"),
    ],
)
def test_unknown_names_are_named(run, name, words):
    code, _, err = run(f"--config.method.router.name={name}")
    assert code == 2 and re.search(words, err), err


def test_options_are_the_routers_own(run):
    code, _, err = run("--config.method.router.lenght=singular")
    assert code == 2 and "router arrow: unknown option 'lenght'; did you mean 'length'?" in err
